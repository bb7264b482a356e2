# What waits to be sent to Kafka is part of the database: a promoted standby sends it, and so does a cluster that a
# dump was restored into. The records are events, so that pulse itself tells what arrived. Needs $ENV{PULSE_BROKERS}.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PulseTest;
use Test::More;

my $count = 2_000;

sub produce
{
	my ($node, $topic, $prefix) = @_;
	$node->safe_psql('postgres', qq{
		SELECT count(pulse.produce('$topic', jsonb_build_object('event_id', '$prefix' || n, 'event_type', 'page_view',
			'user_id', 'user-1', 'event_timestamp', now()), key => '$prefix'))
		  FROM generate_series(1, $count) n});
	$node->safe_psql('postgres', q{SELECT pulse.ingest('events', '[{"event_type": "no_user"}]')});
	return;
}

# Rows with that prefix, those that arrived out of order (ids of a key must rise with the offsets), letters
# in the topic that are none of ours, and what is left over here.
sub check_sent
{
	my ($node, $prefixes, $what) = @_;
	$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pulse.outbox WHERE sent_at IS NULL});
	$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM raw.dlq WHERE forwarded_at IS NULL});
	ok($node->poll_query_until('postgres',
			'SELECT count(*) = ' . $count * @$prefixes . q{ FROM raw.events WHERE kafka_topic IS NOT NULL}), "$what: all that waited has arrived");
	is($node->safe_psql('postgres', q{
			SELECT count(*) FROM (SELECT substr(event_id, 2)::int - lag(substr(event_id, 2)::int) OVER (
				PARTITION BY left(event_id, 1) ORDER BY kafka_partition, kafka_offset) AS step FROM raw.events) s WHERE step <> 1}),
		'0', "$what: in order");
	is($node->safe_psql('postgres', q{SELECT count(*) FROM pulse.verify('events') WHERE NOT ok}), '0', "$what: verify finds nothing");
	no_signal_death($node, $what);
	return;
}

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
# Neither topic is there yet.
configure($primary, 'pulse.topic' => 'outgoing', 'pulse.dlq_topic' => 'outgoing-dead', 'pulse.max_error_ratio' => 1);
$primary->start;
$primary->safe_psql('postgres', 'CREATE EXTENSION pulse');
$primary->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pulse.pipelines});
produce($primary, 'outgoing', 'a');
$primary->poll_query_until('postgres',
	q{SELECT count(*) = 2 FROM pulse.stat_sender WHERE state = 'retrying' AND reason LIKE '%UNKNOWN_TOPIC%'});
pass('the old primary cannot send and says why');
$primary->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'copy', has_streaming => 1);
$standby->start;
produce($primary, 'outgoing', 'b');
$primary->wait_for_catchup($standby);
is($standby->safe_psql('postgres', q{SELECT sum(waiting) FROM pulse.stat_sender}), 2 * $count + 2, 'a standby shows what waits');
is(pulse_processes($standby), '0', 'and sends nothing');
$primary->stop('immediate');
$standby->promote;

# A dump before anything is sent: what waits is in it.
my $dump = PostgreSQL::Test::Utils::tempdir() . '/pulse.dump';
$standby->command_ok([ 'pg_dump', '--format=custom', "--file=$dump", '--dbname', $standby->connstr('postgres') ], 'pg_dump');
feed('outgoing', 0, 1, 1);
feed('outgoing-dead', 0, 1, 1);
check_sent($standby, [ 'a', 'b' ], 'promoted standby');
$standby->stop;

my $new = PostgreSQL::Test::Cluster->new('new');
$new->init;
configure($new, 'pulse.topic' => 'outgoing', 'pulse.dlq_topic' => 'outgoing-dead', 'pulse.brokers' => '', 'pulse.max_error_ratio' => 1);
$new->start;
$new->command_ok([ 'pg_restore', '--exit-on-error', '--dbname', $new->connstr('postgres'), $dump ], 'pg_restore');
is($new->safe_psql('postgres', q{SELECT sum(waiting) FROM pulse.stat_sender}), 2 * $count + 2, 'what waits travels with a dump');
produce($new, 'outgoing', 'c');
$new->append_conf('postgresql.conf', "pulse.brokers = '$ENV{PULSE_BROKERS}'");
$new->reload;
# Reads what the promoted standby sent, and its own, the same once more: duplicates.
check_sent($new, [ 'a', 'b', 'c' ], 'restored');
$new->stop;
done_testing();
