# Nothing of pulse runs on a standby; after promotion it starts by itself and goes on exactly where the
# rows that were replicated end. Needs $ENV{PULSE_BROKERS}.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PulseTest;
use Test::More;

feed('standby', 20_000, 1);
my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
configure($primary, 'pulse.topic' => 'standby');
$primary->start;
$primary->safe_psql('postgres', 'CREATE EXTENSION pulse');
ok(wait_for_count($primary, 20_000), 'the primary reads');

$primary->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'copy', has_streaming => 1);
$standby->start;
feed('standby', 5_000, 2);
ok(wait_for_count($primary, 25_000), 'the primary reads on');
$primary->wait_for_catchup($standby);

check_promise($standby, 25_000, 'standby');
is(pulse_processes($standby), '0', 'nothing runs on the standby');
is($standby->safe_psql('postgres', q{SELECT state, status, h.reason FROM pulse.health() h JOIN pulse.stat_pipeline USING (pipeline)}),
	'idle|stopped|this server is a standby', 'and health() says why');
is(join("\n", grep { /pulse/ && !/LOG:  statement:/ } split /\n/, slurp_file($standby->logfile)),
	'', 'and nothing is said about it');
my ($code, $out, $err) = $standby->psql('postgres', q{SELECT pulse.pause('events')});
isnt($code, 0, 'a command has nobody to carry it out there');
like($err, qr/ERROR/, 'and says so');

# The primary goes down in the middle of a stream. What it had committed and not sent is lost with it,
# rows and offsets together, so it is read again.
feed('standby', 30_000, 3);
$primary->stop('immediate');
my $took = seconds(
	sub {
		$standby->promote;
		$standby->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'pulse worker'});
	});
note("worker after $took s");
cmp_ok($took, '<', 5, 'a worker runs within 5 s of the promotion');
feed('standby', 1_000, 4);
ok(wait_for_count($standby, 56_000), 'the new primary reads on');
check_promise($standby, 56_000, 'new primary');
no_signal_death($standby, 'new primary');
$standby->stop;
done_testing();
