# Stopping under load is quick, loses nothing and kills nobody; the postmaster stays single-threaded and
# signals reach only a worker's main thread. Needs $ENV{PULSE_BROKERS}; PULSE_SOAK=1 stops more often.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PulseTest;
use Test::More;

my $rounds = $ENV{PULSE_SOAK} ? 50 : 5;
my $events = $ENV{PULSE_SOAK} ? 1_000_000 : 200_000;

feed('shutdown', $events, 1);
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
configure($node, 'pulse.topic' => 'shutdown', 'pulse.batch_max_rows' => 200, 'pulse.workers' => 2);
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pulse');
ok(wait_for_count($node, 1), 'load');

# Threads: of all tasks of a worker only the main one may be interrupted.
$node->poll_query_until('postgres', q{SELECT count(*) = 2 FROM pg_stat_activity WHERE backend_type = 'pulse worker'});
my $postmaster = (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
is(scalar(my @tasks = glob("/proc/$postmaster/task/*")), 1, 'the postmaster has one thread');
my @signals = (1, 2, 3, 10, 12, 14, 15, 17, 23);    # HUP INT QUIT USR1 USR2 ALRM TERM CHLD URG
my $wanted = 0;
$wanted |= 1 << ($_ - 1) for @signals;
my $threads = 0;
my @reached;
foreach my $pid (worker_pids($node))
{
	foreach my $task (glob("/proc/$pid/task/*"))
	{
		next if $task =~ m{/\Q$pid\E$};
		my $status = eval { slurp_file("$task/status") } // next;    # it has ended
		my ($blocked) = $status =~ /^SigBlk:\s*([0-9a-f]+)/m;
		$threads++;
		push @reached, "$task $blocked" if (hex($blocked) & $wanted) != $wanted;
	}
}
cmp_ok($threads, '>=', 4, 'workers have threads');
is(join(', ', @reached), '', 'no signal reaches them');

my $slowest = 0;
foreach my $round (1 .. $rounds)
{
	my $before = $node->safe_psql('postgres', 'SELECT sum(records) FROM pulse.offsets');
	last if $before == $events;
	$node->poll_query_until('postgres', "SELECT sum(records) > $before FROM pulse.offsets");
	my $took = seconds(sub { $node->stop('fast') });
	$slowest = $took if $took > $slowest;
	$node->start;
}
note("slowest fast stop: $slowest s");
cmp_ok($slowest, '<', 2, 'fast stops under load are quick');
cmp_ok($slowest, '>', 0, 'there was load to stop under');

my $took = seconds(sub { $node->stop('smart') });
note("smart stop: $took s");
cmp_ok($took, '<', 5, 'a smart stop does not wait for the stream to end');
$node->start;
ok(wait_for_count($node, $events), 'all of it arrives');
check_promise($node, $events, 'after the stops');
no_signal_death($node, 'after the stops');
$node->stop;
done_testing();
