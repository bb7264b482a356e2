# Under load the primary is gone from one moment to the next and the standby takes over, again and again,
# synchronous and asynchronous in turn. Rows and offsets travel in the same WAL: whatever the new primary
# has not got, it reads again. Needs $ENV{PULSE_BROKERS}; PULSE_SOAK=1 does it more often.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PulseTest;
use Test::More;

my $rounds = $ENV{PULSE_SOAK} ? 50 : 2;
my $each = 40_000;

my $primary = PostgreSQL::Test::Cluster->new('node0');
$primary->init(allows_streaming => 1);
configure($primary, 'pulse.topic' => 'failover', 'pulse.batch_max_rows' => 100, 'pulse.workers' => 2);
feed('failover', 100, 1);
$primary->start;
$primary->safe_psql('postgres', 'CREATE EXTENSION pulse');
ok(wait_for_count($primary, 100), 'the first primary reads');

my $total = 100;
foreach my $round (1 .. $rounds)
{
	my $is_synchronous = $round % 2;
	my $what = "round $round, " . ($is_synchronous ? 'synchronous' : 'asynchronous');
	$primary->backup("copy$round");
	my $standby = PostgreSQL::Test::Cluster->new("node$round");
	$standby->init_from_backup($primary, "copy$round", has_streaming => 1);
	$standby->append_conf('postgresql.conf', "synchronous_standby_names = ''");
	$standby->start;
	$primary->append_conf('postgresql.conf',
		"synchronous_standby_names = '" . ($is_synchronous ? '*' : '') . "'");
	$primary->reload;
	$primary->poll_query_until('postgres',
		"SELECT sync_state = '" . ($is_synchronous ? 'sync' : 'async') . "' FROM pg_stat_replication");

	$primary->safe_psql('postgres', q{SELECT pulse.pause('events')});
	feed('failover', $each, $round + 1);
	$primary->safe_psql('postgres', q{SELECT pulse.resume('events')});
	ok(wait_for_count($primary, $total + 1000), "$what: in the middle of it");
	if (!$is_synchronous)
	{
		# It lags: what comes now it will never get.
		$standby->append_conf('postgresql.conf', "primary_conninfo = ''");
		$standby->reload;
		$primary->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_replication');
		my $now = $primary->safe_psql('postgres', 'SELECT count(*) FROM raw.events');
		ok(wait_for_count($primary, $now + 1000), "$what: the standby is left behind");
	}
	my $seen = $primary->safe_psql('postgres', 'SELECT count(*) FROM raw.events');
	$primary->stop('immediate');
	$standby->poll_query_until('postgres', 'SELECT pg_last_wal_replay_lsn() = pg_last_wal_receive_lsn()');
	my $kept = $standby->safe_psql('postgres', 'SELECT count(*) FROM raw.events');
	$standby->promote;
	$total += $each;
	note("$what: $seen rows seen on the old primary, $kept on the standby");
	cmp_ok($seen, '<', $total, "$what: there was load");
	cmp_ok($kept, '>=', $seen, "$what: what was seen is there") if $is_synchronous;
	cmp_ok($kept, '<', $seen, "$what: some of what was seen is lost") if !$is_synchronous;
	ok(wait_for_count($standby, $total), "$what: the new primary reads to the end");
	check_promise($standby, $total, $what);
	is($standby->safe_psql('postgres', 'SELECT sum(next_offset) FROM pulse.offsets'), $total,
		"$what: offsets end where the rows end");
	no_signal_death($standby, $what);
	$primary->clean_node;
	$primary = $standby;
}

# A synchronous standby that is gone: commits wait, and a stop does not.
$primary->append_conf('postgresql.conf', "synchronous_standby_names = 'nobody'");
$primary->reload;
feed('failover', 1000, 10_000);
$primary->poll_query_until('postgres',
	q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'pulse worker' AND wait_event = 'SyncRep'});
my $took = seconds(sub { $primary->stop('fast') });
note("fast stop while a commit waits for a standby: $took s");
cmp_ok($took, '<', 5, 'a stop does not wait for a synchronous standby');
$primary->append_conf('postgresql.conf', "synchronous_standby_names = ''");
$primary->start;
ok(wait_for_count($primary, $total + 1000), 'all is there after it');
check_promise($primary, $total + 1000, 'after the stop');
$primary->stop;
done_testing();
