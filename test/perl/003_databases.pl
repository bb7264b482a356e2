# What else a DBA does on the server: other databases, copies of ours, and dropping it under the workers'
# feet. Needs $ENV{PULSE_BROKERS}.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PulseTest;
use Test::More;

feed('databases', 60_000, 1);
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
configure($node, 'pulse.topic' => 'databases', 'pulse.database' => 'app', 'pulse.batch_max_rows' => 200,
	log_min_messages => 'log');
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE app');
$node->safe_psql('app', 'CREATE EXTENSION pulse');
ok(wait_for_count($node, 1, 'app'), 'load');

# Another database comes and goes while workers are busy: each must answer the barrier at once. The median,
# for the machine may be busy with other things.
my @took;
foreach my $round (1 .. 5)
{
	$node->safe_psql('postgres', "SET statement_timeout = '30s'; CREATE DATABASE other");
	push @took, seconds(sub { $node->safe_psql('postgres', "SET statement_timeout = '30s'; DROP DATABASE other") });
}
@took = sort { $a <=> $b } @took;
note("drop of another database: @took s");
cmp_ok($took[2], '<', 1, 'another database can be dropped at once under load');
ok(wait_for_count($node, 60_000, 'app'), 'all arrives');
check_promise($node, 60_000, 'after that', 'app');

# Without brokers nothing holds a connection.
$node->append_conf('postgresql.conf', "pulse.brokers = ''");
$node->reload;
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'app'}),
	'no connection is left');
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE app');
check_promise($node, 60_000, 'the copy', 'copy');
$node->safe_psql('postgres', 'ALTER DATABASE app RENAME TO app_old');
$node->safe_psql('postgres', 'ALTER DATABASE app_old RENAME TO app');
$node->append_conf('postgresql.conf', "pulse.brokers = '$ENV{PULSE_BROKERS}'");
$node->reload;
feed('databases', 1_000, 2);
ok(wait_for_count($node, 61_000, 'app'), 'it goes on when the brokers are back');
check_promise($node, 61_000, 'brokers back', 'app');
is($node->safe_psql('copy', 'SELECT count(*) FROM raw.events'), '60000', 'nothing runs in the copy');

# Dropped by force: workers end, and the launcher waits in silence.
my $position = -s $node->logfile;
$node->safe_psql('postgres', 'DROP DATABASE app WITH (FORCE)');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type IN ('pulse worker', 'pulse coordinator')}),
	'workers and coordinator are gone');
my $settled = -s $node->logfile;
my $since = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
$node->poll_query_until('postgres', "SELECT clock_timestamp() > '$since'::timestamptz + interval '4 s'");
my @noise = grep { /pulse|FATAL/ && !/LOG:  (statement|connection)/ } split /\n/, log_since($node, $settled);
cmp_ok(scalar(@noise), '<=', 2, 'then it is quiet') or diag(join("\n", @noise));

# A new one of the same name starts from the beginning.
$node->safe_psql('postgres', 'CREATE DATABASE app');
$node->safe_psql('app', 'CREATE EXTENSION pulse');
ok($node->poll_query_until('app', q{SELECT to_regclass('raw.events') IS NOT NULL}), 'the default pipeline is made');
ok(wait_for_count($node, 61_000, 'app'), 'a new database of that name is filled');
check_promise($node, 61_000, 'new database', 'app');
no_signal_death($node, 'in the end');
$node->stop;
done_testing();
