# A base backup of the running system, brought to a point in time in its past, and an upgraded cluster: each
# goes on exactly where its rows end, and what it sends is told from what was sent in the lost time. Needs
# $ENV{PULSE_BROKERS}; PULSE_SOAK=1 travels more often.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PulseTest;
use Test::More;

my $points = $ENV{PULSE_SOAK} ? 20 : 2;
my $total = 20_000;

sub rows_end_at_offsets
{
	my ($node, $what) = @_;
	my $rows = $node->safe_psql('postgres', 'SELECT count(*) FROM raw.events');
	is($node->safe_psql('postgres', 'SELECT sum(next_offset) FROM pulse.offsets'), $rows,
		"$what: offsets end where the rows end");
	check_promise($node, $rows, $what);
	return $rows;
}

# Sent to a topic of its own, by whoever has these values.
sub produce
{
	my ($node, $who, $count) = @_;
	$node->safe_psql('postgres', "SELECT count(pulse.produce('travel-out', '$who ' || n, key => '$who')) FROM generate_series(1, $count) n");
	return;
}

sub wait_sent
{
	my ($node, $what) = @_;
	ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pulse.outbox WHERE sent_at IS NULL'), "$what: all is sent");
	return;
}

sub goes_on
{
	my ($node, $count, $what) = @_;
	$node->safe_psql('postgres', 'DROP TRIGGER dawdle ON raw.events');
	$node->append_conf('postgresql.conf', "pulse.brokers = '$ENV{PULSE_BROKERS}'");
	$node->reload;
	ok(wait_for_count($node, $count), "$what: goes on");
	check_promise($node, $count, "$what: in the end");
	is($node->safe_psql('postgres', 'SELECT sum(duplicates) FROM pulse.offsets'), '0',
		"$what: no record is read twice");
	no_signal_death($node, $what);
	return;
}

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(has_archiving => 1, allows_streaming => 1);
configure($node, 'pulse.topic' => 'travel', 'pulse.batch_max_rows' => 50, 'pulse.counters' => 'minute,hour,day,user_day');
feed('travel', 100, 1);
feed('travel-out', 0, 1, 1);
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pulse');
produce($node, 'early', 10);
ok(wait_for_count($node, 100), 'it reads');
# So that the stream lasts for some seconds.
$node->safe_psql('postgres', q{
	CREATE FUNCTION public.dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		PERFORM pg_sleep(0.02); RETURN NULL; END $$;
	CREATE TRIGGER dawdle AFTER INSERT ON raw.events FOR EACH STATEMENT EXECUTE FUNCTION public.dawdle()});
feed('travel', $total - 100, 2);
ok(wait_for_count($node, 500), 'load');
$node->backup('running');
my $seen = $node->safe_psql('postgres', 'SELECT count(*) FROM raw.events');
foreach my $point (1 .. $points)
{
	$node->poll_query_until('postgres', "SELECT count(*) > $seen OR count(*) = $total FROM raw.events");
	$seen = $node->safe_psql('postgres', "SELECT pg_create_restore_point('point$point'); SELECT count(*) FROM raw.events");
	$seen =~ s/.*\n//s;
}
ok(wait_for_count($node, $total), 'it reads to the end');
check_promise($node, $total, 'the running system');
produce($node, 'lost', 100);
wait_sent($node, 'the running system');
my $wal = $node->safe_psql('postgres', 'SELECT pg_walfile_name(pg_switch_wal())');
$node->poll_query_until('postgres', "SELECT last_archived_wal >= '$wal' FROM pg_stat_archiver");

foreach my $point (1 .. $points)
{
	my $past = PostgreSQL::Test::Cluster->new("past$point");
	$past->init_from_backup($node, 'running', has_restoring => 1, standby => 0);
	$past->append_conf('postgresql.conf', "pulse.brokers = ''");
	$past->append_conf('postgresql.conf', "recovery_target_name = 'point$point'");
	$past->append_conf('postgresql.conf', "recovery_target_action = 'promote'");
	$past->append_conf('postgresql.conf', "recovery_target_timeline = 'current'");
	$past->append_conf('postgresql.conf', "archive_mode = 'off'");    # the archive is not its own
	$past->start;
	$past->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
	my $rows = rows_end_at_offsets($past, "point $point");
	note("point $point: $rows rows");
	cmp_ok($rows, '<', $total, "point $point: in the middle");
	goes_on($past, $total, "point $point");
	produce($past, "other$point", 100);
	wait_sent($past, "point $point");
	$past->stop;
	$past->clean_node;
}

# The copy as it is, without a target: nothing but the end of the WAL it came with.
my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init_from_backup($node, 'running');
$copy->append_conf('postgresql.conf', "pulse.brokers = ''");
$copy->append_conf('postgresql.conf', "archive_mode = 'off'");
$copy->start;
my $rows = rows_end_at_offsets($copy, 'base backup');
cmp_ok($rows, '<', $total, 'base backup: taken in the middle');
goes_on($copy, $total, 'base backup');
$copy->stop;

# pg_upgrade starts both servers in its own mode: nothing of pulse runs there.
$node->stop;
my $new = PostgreSQL::Test::Cluster->new('new');
$new->init;
configure($new, 'pulse.topic' => 'travel', 'pulse.brokers' => '', 'pulse.counters' => 'minute,hour,day,user_day');
my $bindir = $node->config_data('--bindir');
my @upgrade = (
	'pg_upgrade', '--no-sync', '--old-datadir', $node->data_dir, '--new-datadir', $new->data_dir,
	'--old-bindir', $bindir, '--new-bindir', $bindir, '--socketdir', $new->host,
	'--old-port', $node->port, '--new-port', $new->port);
chdir PostgreSQL::Test::Utils::tempdir() or die $!;    # it writes its logs where it is
command_ok([ @upgrade, '--check' ], 'pg_upgrade --check');
command_ok([@upgrade], 'pg_upgrade');
$new->start;
is(rows_end_at_offsets($new, 'upgraded'), $total, 'upgraded: all of it');
feed('travel', 1000, 3);
goes_on($new, $total + 1000, 'upgraded');
is($new->safe_psql('postgres', 'SELECT count(*) FROM pulse.pipelines'), '1', 'upgraded: one pipeline');

# What all of them have sent is no event: letters of another pipeline, with the headers that came.
$new->safe_psql('postgres', q{
	SELECT pulse.create_pipeline('sent', ARRAY['travel-out'], settings => '{"dlq_topic": "", "max_error_ratio": 1}')});
my $sent = 10 + 100 * (1 + $points);
ok($new->poll_query_until('postgres', "SELECT count(DISTINCT value) >= $sent FROM raw.dlq"), 'what was sent has arrived');
my $headers = q{SELECT value,
	(SELECT h ->> 'value' FROM jsonb_array_elements(kafka_headers) h WHERE h ->> 'key' = 'pulse.outbox_id') AS id,
	(SELECT h ->> 'value' FROM jsonb_array_elements(kafka_headers) h WHERE h ->> 'key' = 'pulse.dedup_key') AS dedup_key FROM raw.dlq};
cmp_ok($new->safe_psql('postgres', "SELECT count(*) FROM (SELECT id FROM ($headers) s GROUP BY id HAVING count(DISTINCT value) > 1) t"),
	'>', 0, 'different records have the same id');
is($new->safe_psql('postgres', "SELECT count(DISTINCT value), count(DISTINCT dedup_key), count(DISTINCT (value, dedup_key)) FROM ($headers) s"),
	"$sent|$sent|$sent", 'and each a key of its own');
$new->stop;
done_testing();
