# A dump taken while events flow, restored into another cluster, goes on exactly where its rows end: the
# offsets travel with them. Needs $ENV{PULSE_BROKERS}.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use PulseTest;
use Test::More;

feed('restore', 50_000, 1);
my $old = PostgreSQL::Test::Cluster->new('old');
$old->init;
configure($old, 'pulse.topic' => 'restore', 'pulse.batch_max_rows' => 100, 'pulse.counters' => 'minute,hour,day,user_day');
$old->start;
$old->safe_psql('postgres', 'CREATE EXTENSION pulse');
ok(wait_for_count($old, 500), 'the old cluster reads');
# A pipeline with a stage, of a role that the new cluster does not have: that is no reason not to restore it.
$old->safe_psql('postgres', "CREATE ROLE gone; CREATE TABLE other (event_id text PRIMARY KEY);
    SELECT pulse.create_pipeline('another', '{another}', 'public.other');
    SELECT pulse.add_stage('another', 'all', 'filter', 'SELECT * FROM batch');
    UPDATE pulse.pipelines SET owner = 'gone' WHERE name = 'another'");
my $dump = PostgreSQL::Test::Utils::tempdir() . '/pulse.dump';
$old->command_ok([ 'pg_dump', '--format=custom', "--file=$dump", '--dbname', $old->connstr('postgres') ], 'pg_dump under load');
ok(wait_for_count($old, 50_000), 'which goes on');
check_promise($old, 50_000, 'old cluster');
$old->stop;

my $new = PostgreSQL::Test::Cluster->new('new');
$new->init;
configure($new, 'pulse.topic' => 'restore', 'pulse.brokers' => '', 'pulse.counters' => 'minute,hour,day,user_day');
$new->start;
$new->command_ok([ 'pg_restore', '--exit-on-error', '--dbname', $new->connstr('postgres'), $dump ], 'pg_restore');
is($new->safe_psql('postgres', "SELECT owner, s.name FROM pulse.pipelines p JOIN pulse.stages s ON s.pipeline = p.name"), 'gone|all',
    'a pipeline of a role that is not there, and its stage');
$new->safe_psql('postgres', "SELECT pulse.drop_pipeline('another')");
my $rows = $new->safe_psql('postgres', 'SELECT count(*) FROM raw.events');
cmp_ok($rows, '>', 0, 'the dump has rows');
note("$rows rows in the dump");
check_promise($new, $rows, 'restored');
is($new->safe_psql('postgres', 'SELECT sum(next_offset) FROM pulse.offsets'), $rows, 'offsets end where the rows end');
my $moves = $new->safe_psql('postgres', 'SELECT count(*) FROM pulse.offset_log');

$new->append_conf('postgresql.conf', "pulse.brokers = '$ENV{PULSE_BROKERS}'");
$new->reload;
feed('restore', 1_000, 2);
ok(wait_for_count($new, 51_000), 'the new cluster reads on');
check_promise($new, 51_000, 'new cluster');
is($new->safe_psql('postgres', 'SELECT sum(duplicates) FROM pulse.offsets'), '0', 'no record is read twice');
is($new->safe_psql('postgres', 'SELECT count(*) FROM pulse.offset_log'), $moves, 'nobody moved an offset');
is($new->safe_psql('postgres', 'SELECT count(*) FROM pulse.pipelines'), '1', 'no second pipeline');
no_signal_death($new, 'new cluster');
$new->stop;
done_testing();
