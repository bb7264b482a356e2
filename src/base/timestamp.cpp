// RFC 3339 and epoch milliseconds; see timestamp.hpp. Called by decode for every event, so it reads
// fixed positions instead of scanning.
#include "base/timestamp.hpp"

#include <cstdio>

namespace pulse {

namespace {

constexpr size_t kDateLength = 10;    // yyyy-mm-dd
constexpr size_t kSecondsLength = 19; // yyyy-mm-ddThh:mm:ss
constexpr size_t kOffsetLength = 6;   // +hh:mm
constexpr int kMaxFractionDigits = 9;

bool
IsDigit(char byte)
{
    return byte >= '0' && byte <= '9';
}

// The two digits at position, or -1.
int
TwoDigits(std::string_view text, size_t position)
{
    if (!IsDigit(text[position]) || !IsDigit(text[position + 1]))
        return -1;
    return (text[position] - '0') * 10 + (text[position + 1] - '0');
}

int
DaysInMonth(int year, int month)
{
    constexpr int kDays[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month == 2 && is_leap ? 29 : kDays[month - 1];
}

// Days since 1970-01-01, counting years from March so that the leap day is the last of its year.
int32_t
DaysFromCivil(int year, int month, int day)
{
    int shifted_year = month <= 2 ? year - 1 : year;
    int era = shifted_year / 400; // year >= 1, so shifted_year >= 0
    int year_of_era = shifted_year - era * 400;
    int day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    int day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

// Microseconds of the digits after the point; *position moves past them. -1: none or too many.
int64_t
ParseFraction(std::string_view text, size_t *position)
{
    int64_t micros = 0;
    int digits = 0;
    while (*position < text.size() && IsDigit(text[*position])) {
        if (digits < 6)
            micros = micros * 10 + (text[*position] - '0');
        digits++;
        (*position)++;
    }
    if (digits == 0 || digits > kMaxFractionDigits)
        return -1;
    for (; digits < 6; digits++)
        micros *= 10;
    return micros;
}

// Seconds east of UTC of the rest of the text, which must be exactly an offset.
std::optional<int64_t>
ParseOffset(std::string_view text)
{
    if (text == "Z" || text == "z")
        return 0;
    if (text.size() != kOffsetLength || (text[0] != '+' && text[0] != '-') || text[3] != ':')
        return std::nullopt;
    int hours = TwoDigits(text, 1), minutes = TwoDigits(text, 4);
    if (hours < 0 || hours > 23 || minutes < 0 || minutes > 59)
        return std::nullopt;
    int64_t seconds = hours * 3600 + minutes * 60;
    return text[0] == '-' ? -seconds : seconds;
}

} // namespace

std::optional<int64_t>
ParseRfc3339(std::string_view text)
{
    if (text.size() < kSecondsLength + 1 || text[13] != ':' || text[16] != ':')
        return std::nullopt;
    if (text[kDateLength] != 'T' && text[kDateLength] != 't' && text[kDateLength] != ' ')
        return std::nullopt;
    std::optional<int32_t> days = ParseFullDate(text.substr(0, kDateLength));
    int hours = TwoDigits(text, 11), minutes = TwoDigits(text, 14), seconds = TwoDigits(text, 17);
    if (!days || hours < 0 || hours > 23 || minutes < 0 || minutes > 59 || seconds < 0 ||
        seconds > 59)
        return std::nullopt;

    size_t position = kSecondsLength;
    int64_t micros = 0;
    if (text[position] == '.') {
        position++;
        micros = ParseFraction(text, &position);
        if (micros < 0)
            return std::nullopt;
    }
    std::optional<int64_t> offset_s = ParseOffset(text.substr(position));
    if (!offset_s)
        return std::nullopt;
    int64_t utc_s = *days * int64_t{86400} + hours * 3600 + minutes * 60 + seconds - *offset_s;
    int64_t utc_us = utc_s * kMicrosPerSecond + micros;
    if (utc_us < kMinTimestampUs || utc_us > kMaxTimestampUs)
        return std::nullopt;
    return utc_us;
}

std::optional<int32_t>
ParseFullDate(std::string_view text)
{
    if (text.size() != kDateLength || text[4] != '-' || text[7] != '-')
        return std::nullopt;
    int century = TwoDigits(text, 0), year_of_century = TwoDigits(text, 2);
    int month = TwoDigits(text, 5), day = TwoDigits(text, 8);
    if (century < 0 || year_of_century < 0)
        return std::nullopt;
    int year = century * 100 + year_of_century;
    if (year < 1 || month < 1 || month > 12 || day < 1 || day > DaysInMonth(year, month))
        return std::nullopt;
    return DaysFromCivil(year, month, day);
}

std::string
FormatFullDate(int32_t days)
{
    // DaysFromCivil() backwards.
    int32_t shifted = days + 719468;
    int era = shifted / 146097;
    int day_of_era = shifted - era * 146097;
    int year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int shifted_month = (5 * day_of_year + 2) / 153;
    int day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    int month = shifted_month < 10 ? shifted_month + 3 : shifted_month - 9;
    int year = year_of_era + era * 400 + (month <= 2 ? 1 : 0);
    char text[32];
    std::snprintf(text, sizeof(text), "%04d-%02d-%02d", year, month, day);
    return text;
}

std::string
FormatRfc3339(int64_t timestamp_us)
{
    int64_t days = timestamp_us / kMicrosPerDay - (timestamp_us % kMicrosPerDay < 0 ? 1 : 0);
    int64_t micros = timestamp_us - days * kMicrosPerDay;
    int64_t seconds = micros / kMicrosPerSecond;
    char text[40];
    std::snprintf(text, sizeof(text), "T%02d:%02d:%02d.%06dZ", static_cast<int>(seconds / 3600),
                  static_cast<int>(seconds / 60 % 60), static_cast<int>(seconds % 60),
                  static_cast<int>(micros % kMicrosPerSecond));
    return FormatFullDate(static_cast<int32_t>(days)) + text;
}

int64_t
RoundTime(int64_t timestamp_us, int digits)
{
    constexpr int64_t kY2000Us = 946684800 * kMicrosPerSecond;
    int64_t unit = 1;
    for (; digits < 6; digits++)
        unit *= 10;
    int64_t since_us = timestamp_us - kY2000Us;
    int64_t half = since_us < 0 ? -unit / 2 : unit / 2;
    return kY2000Us + (since_us + half) / unit * unit;
}

std::optional<int64_t>
MicrosFromEpochMs(int64_t epoch_ms)
{
    // Compared in milliseconds: the multiplication below must not overflow.
    if (epoch_ms < kMinTimestampUs / 1000 || epoch_ms > kMaxTimestampUs / 1000)
        return std::nullopt;
    return epoch_ms * 1000;
}

} // namespace pulse
