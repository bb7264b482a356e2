// Random numbers that are the same on every machine: integers only, because the standard library's
// distributions and logarithms differ between implementations. The generator is xoshiro256**,
// seeded by splitmix64 (Blackman and Vigna, "Scrambled linear pseudorandom number generators",
// 2021). Regime: C++, no allocation, no errors.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace pulse::sim {

// A probability in units of 2^-32; one is 2^32.
struct Share {
    uint64_t threshold = 0;

    static Share Of(double share)
    {
        return {static_cast<uint64_t>(std::llround(std::ldexp(share, 32)))};
    }
};

class Random {
  public:
    // Different streams of one seed are independent of each other.
    Random(uint64_t seed, uint64_t stream)
    {
        uint64_t mixed = seed ^ (stream * 0x9e3779b97f4a7c15);
        for (uint64_t &word : state_)
            word = SplitMix(&mixed);
    }

    uint64_t Next()
    {
        const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
        const uint64_t shifted = state_[1] << 17;
        state_[2] ^= state_[0];
        state_[3] ^= state_[1];
        state_[1] ^= state_[2];
        state_[0] ^= state_[3];
        state_[2] ^= shifted;
        state_[3] = std::rotl(state_[3], 45);
        return result;
    }

    // Uniform in [0, count); count > 0.
    uint32_t Below(uint32_t count) { return static_cast<uint32_t>((High() * count) >> 32); }

    // Uniform in [first, last].
    int64_t Between(int64_t first, int64_t last)
    {
        return first + Scale(High(), static_cast<uint64_t>(last - first + 1));
    }

    bool Chance(Share share) { return High() < share.threshold; }

    // Exponentially distributed with this mean, by von Neumann's comparison method ("Various
    // techniques used in connection with random digits", 1951): a run of falling uniform numbers
    // of odd length gives the fraction, each run of even length adds one to the integer part.
    int64_t Exponential(int64_t mean)
    {
        for (uint64_t whole = 0;; whole++) {
            const uint64_t first = High();
            uint64_t last = first;
            bool is_odd = true;
            for (uint64_t next = High(); next < last; next = High()) {
                last = next;
                is_odd = !is_odd;
            }
            if (is_odd)
                return Scale((whole << 32) | first, static_cast<uint64_t>(mean));
        }
    }

  private:
    static uint64_t SplitMix(uint64_t *state)
    {
        uint64_t word = (*state += 0x9e3779b97f4a7c15);
        word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9;
        word = (word ^ (word >> 27)) * 0x94d049bb133111eb;
        return word ^ (word >> 31);
    }

    uint64_t High() { return Next() >> 32; }

    // factor, in units of 2^-32, times value.
    static int64_t Scale(uint64_t factor, uint64_t value)
    {
        return static_cast<int64_t>((static_cast<unsigned __int128>(factor) * value) >> 32);
    }

    uint64_t state_[4];
};

} // namespace pulse::sim
