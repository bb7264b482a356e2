// Reads the file named by pulse.secrets_file. It is opened once and judged by its descriptor, so
// that what was checked is what is read. No message repeats anything from inside the file but key
// names. Called before a client is made. Regime: C++.
#include "kafka/config.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <functional>
#include <sys/stat.h>
#include <unistd.h>

#include "kafka/handles.hpp"

namespace pulse::kafka {

namespace {

constexpr off_t kMaxSecretsBytes = 1024 * 1024;

Status
CheckFile(const std::string &path, int fd)
{
    struct stat info = {};
    std::string file = "secrets file \"" + path + "\"";
    if (fstat(fd, &info) != 0)
        return Status::Error("could not stat " + file + ": " + std::strerror(errno));
    if (!S_ISREG(info.st_mode))
        return Status::Error(file + " is not a regular file");
    if (info.st_uid != geteuid() && info.st_uid != 0)
        return Status::Error(file + " must be owned by the database user or root");
    if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0)
        return Status::Error(file + " must not be accessible by group or others: use chmod 0600");
    if (info.st_size > kMaxSecretsBytes)
        return Status::Error(file + " is larger than 1 MB");
    return Status::Ok();
}

Result<std::string>
ReadAll(const std::string &path, int fd)
{
    std::string text;
    char buffer[4096];
    while (true) {
        ssize_t count = read(fd, buffer, sizeof(buffer));
        if (count == 0)
            return text;
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return Status::Error("could not read secrets file \"" + path +
                                 "\": " + std::strerror(errno));
        text.append(buffer, static_cast<size_t>(count));
        if (text.size() > static_cast<size_t>(kMaxSecretsBytes))
            return Status::Error("secrets file \"" + path + "\" is larger than 1 MB");
    }
}

// A PEM block in one line carries its line breaks as \n.
std::string
UnescapeLines(std::string_view text)
{
    std::string result;
    for (size_t at = 0; at < text.size(); ++at) {
        if (text[at] == '\\' && at + 1 < text.size() && text[at + 1] == 'n') {
            result += '\n';
            ++at;
        } else {
            result += text[at];
        }
    }
    return result;
}

// ParseProperties() names the bad item, which here may be half a password: name the line instead.
Result<Properties>
ParseLines(const std::string &path, std::string_view text)
{
    Properties properties;
    for (int line = 1; !text.empty(); ++line) {
        size_t end = text.find('\n');
        Result<Properties> parsed = ParseProperties(text.substr(0, end), '\n');
        text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
        if (!parsed.ok())
            return Status::Error("secrets file \"" + path + "\", line " + std::to_string(line) +
                                 ": expected key=value");
        for (auto &[key, value] : parsed.value()) {
            // Every property has a dot. What has none may be a piece of a pasted key: don't repeat
            // it.
            if (key.find('.') == std::string::npos)
                return Status::Error("secrets file \"" + path + "\", line " + std::to_string(line) +
                                     ": unknown property; a PEM block must be one line with \\n");
            bool is_pem = key.size() > 4 && key.compare(key.size() - 4, 4, ".pem") == 0;
            properties.emplace_back(key, is_pem ? UnescapeLines(value) : value);
        }
    }
    return properties;
}

Result<std::string>
ReadChecked(const std::string &path)
{
    // Non-blocking, or opening a FIFO would wait for its writer.
    FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (file.get() < 0)
        return Status::Error("could not open secrets file \"" + path +
                             "\": " + std::strerror(errno));
    if (Status status = CheckFile(path, file.get()); !status.ok())
        return status;
    return ReadAll(path, file.get());
}

} // namespace

Result<uint64_t>
SecretsDigest(const std::string &path)
{
    Result<std::string> text = ReadChecked(path);
    if (!text.ok())
        return Status::Error(text.message());
    return std::hash<std::string>()(text.value());
}

Result<Properties>
ReadSecretsFile(const std::string &path)
{
    Result<std::string> text = ReadChecked(path);
    if (!text.ok())
        return Status::Error(text.message());
    Result<Properties> properties = ParseLines(path, text.value());
    if (properties.ok())
        if (Status status = CheckSecrets(properties.value()); !status.ok())
            return status;
    return properties;
}

} // namespace pulse::kafka
