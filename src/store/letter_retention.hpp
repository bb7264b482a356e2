// Retention of dead letters: settled ones older than pulse.dlq_retention go, and the ledger says
// how many. Regime: PG, each inside a transaction of its own.
#pragma once

namespace pulse::store {

// Some pipeline has a dlq_retention: worth a look.
bool WantsLetterRetention();

// Deletes a pipeline's settled letters that are older than its dlq_retention, a bounded number of
// them. True when there may be more. Locks nothing that others wait for: letters that somebody
// works on are passed over. The pipeline's settings lie over the process's until the transaction
// ends.
bool DropSettledLetters(const char *pipeline);

} // namespace pulse::store
