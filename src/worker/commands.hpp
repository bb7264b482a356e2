// The commands of SQL functions (pause, resume, stop, seek, accept_gap, skip, fresh watermarks):
// taken from shared memory, carried out in transactions of their own, answered when they are done.
// Regime: C++ with doors.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "ingest/watcher.hpp"
#include "pg/shmem.hpp"
#include "worker/known_pipeline.hpp"

namespace pulse::worker {

class Commands {
  public:
    // read_table looks at pulse.pipelines again: a command may follow right after
    // create_pipeline().
    Commands(KnownPipelines *pipelines, ingest::Watcher *watcher, std::function<void()> read_table)
        : pipelines_(pipelines), watcher_(watcher), read_table_(std::move(read_table))
    {
    }

    // What a coordinator before this one had begun is begun again: every command may run twice, and
    // its caller still waits.
    void TakeOver();

    // Takes new commands and goes on with those under way.
    void Serve();

    // Answers of the watcher to what Serve() asked.
    void TakeWatermarks(const ingest::WatchAnswer &answer);
    void TakePositions(const ingest::WatchAnswer &answer);
    void TakeRecord(const ingest::WatchAnswer &answer);

  private:
    struct Running {
        int index;
        int64_t id;
        pg::CommandKind kind;
        std::string pipeline;
        std::string topic;
        int32_t partition;
        std::string argument;
        std::string caller;
        bool is_waiting_for_workers = false;
        bool is_asking = false;
        int64_t begun_at = 0;     // TimestampTz
        int64_t next_offset = -1; // of its one partition, when it asked
    };

    bool OrRefuse(const Running &command, const char *hint, const std::function<void()> &step);
    void Begin(Running *command);
    bool AdvanceOrRefuse(Running *command);
    bool Advance(Running *command); // true when it is finished
    static bool IsGivenUp(const Running &command);
    void WaitForWorkers(const Running &command, KnownPipeline *known);
    static void LetGo(const Running &command, KnownPipeline *known);
    static std::vector<PartitionOffset> PartitionsOf(Running *command);
    bool Ask(Running *command, KnownPipeline *known);
    bool TakeAsking(int64_t id, Running *command);
    void AssignAgain(const std::string &pipeline);
    bool ChangeOrRefuse(const Running &command, const std::function<void()> &change);
    void AcceptGap(const Running &command, const ingest::WatchAnswer &answer);
    void Skip(const Running &command, const ingest::FetchedRecord &record, const char *error_code);
    void SetDesired(const Running &command, const char *state);
    void PublishDesired(const Running &command, const char *state);
    void Resumed(const Running &command, KnownPipeline *known);
    void AcceptRejects(const Running &command, const ingest::WatchAnswer &answer);
    void MoveSeeked(const Running &command, const ingest::WatchAnswer &answer);
    void Finish(const Running &command, const std::string &sqlstate, const std::string &message,
                const std::string &hint);

    KnownPipelines *pipelines_;
    ingest::Watcher *watcher_;
    std::function<void()> read_table_;
    std::vector<Running> running_;
};

} // namespace pulse::worker
