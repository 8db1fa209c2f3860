// A gain with 64 samples of latency that can also do what bad plug-ins do: crash, hang, or make no numbers. SIDES: how many channels.
// It glides to a new gain over some 50 ms, from the one it has when it is activated; its program "quiet" is a gain of 0.25.
#include "DistrhoPlugin.hpp"
#include <cmath>
#include <cstdlib>
#include <unistd.h>

START_NAMESPACE_DISTRHO

class BadGain : public Plugin {
    enum { kGain, kMode, kCount };
    static const uint32_t delay = 64;
    float gain = 1, mode = 0, gliding = 1, line[SIDES][delay] = {};
    uint32_t at = 0;

public:
    BadGain() : Plugin(kCount, 2, 0) {
        setLatency(delay);
        if (std::getenv("BADGAIN_ABORT")) std::abort();
    }

protected:
    const char* getLabel() const override { return "BadGain"; }
    const char* getMaker() const override { return "Punchin"; }
    const char* getLicense() const override { return "GPL-3.0-or-later"; }
    uint32_t getVersion() const override { return d_version(1, 0, 0); }
    int64_t getUniqueId() const override { return d_cconst('B', 'a', 'd', 'G'); }

    void initParameter(uint32_t index, Parameter& p) override {
        p.hints = kParameterIsAutomatable | (index == kMode ? kParameterIsInteger : 0);
        p.name = p.symbol = index == kGain ? "gain" : "mode";
        p.ranges.min = 0;
        p.ranges.max = index == kGain ? 2 : 3;
        p.ranges.def = index == kGain ? 1 : 0;
    }
    void initProgramName(uint32_t index, String& name) override { name = index ? "quiet" : "plain"; }
    void loadProgram(uint32_t index) override { gain = index ? 0.25f : 1; }
    float getParameterValue(uint32_t index) const override { return index == kGain ? gain : mode; }
    void setParameterValue(uint32_t index, float value) override { (index == kGain ? gain : mode) = value; }
    void activate() override {
        for (auto& side : line) for (float& sample : side) sample = 0;
        at = 0;
        gliding = gain;
    }

    void run(const float** in, float** out, uint32_t frames) override {
        const int what = static_cast<int>(mode + 0.5f);
        if (what == 1) *static_cast<volatile int*>(nullptr) = 1;
        while (what == 2) sleep(1);
        for (uint32_t i = 0; i < frames; ++i, at = (at + 1) % delay) {
            gliding += (gain - gliding) * 4e-4f;
            for (int side = 0; side < SIDES; ++side) {
                const float now = in[side][i];
                out[side][i] = what == 3 ? NAN : line[side][at] * gliding;
                line[side][at] = now;
            }
        }
    }
};

Plugin* createPlugin() { return new BadGain(); }

END_NAMESPACE_DISTRHO
