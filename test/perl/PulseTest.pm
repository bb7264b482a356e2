# What the TAP tests of pulse share: a server with pulse in it, events from the harness's broker, and the
# promise checked.
package PulseTest;

use strict;
use warnings;

use Exporter 'import';
use IO::Socket::UNIX;
use Test::More;
use Time::HiRes qw(time);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(feed configure wait_for_count check_promise worker_pids pulse_processes seconds log_since
  no_signal_death);

# Sends events to the topic, which is created when it isn't there. Each seed is another stream.
sub feed
{
	my ($topic, $count, $seed, $partitions) = @_;
	$partitions //= 3;
	my $socket = IO::Socket::UNIX->new(Peer => $ENV{PULSE_FEEDER})
	  or BAIL_OUT("no feeder at $ENV{PULSE_FEEDER}: $!");
	print $socket "feed $topic $partitions $count $seed\n";
	$socket->flush;
	my $answer = <$socket>;
	chomp $answer;
	BAIL_OUT("feeder: $answer") if $answer ne 'ok';
	return;
}

sub configure
{
	my ($node, %settings) = @_;
	%settings = (
		'pulse.database' => 'postgres',
		'pulse.brokers' => $ENV{PULSE_BROKERS},
		max_worker_processes => 16,
		restart_after_crash => 'on',
		log_min_messages => 'warning',
		%settings);
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'pulse'\n");
	$node->append_conf('postgresql.conf', "$_ = '$settings{$_}'\n") for sort keys %settings;
	return;
}

sub wait_for_count
{
	my ($node, $count, $database) = @_;
	return $node->poll_query_until($database // 'postgres', "SELECT count(*) >= $count FROM raw.events");
}

# Every event once, and the books agree.
sub check_promise
{
	my ($node, $count, $what, $database) = @_;
	$database //= 'postgres';
	is($node->safe_psql($database, 'SELECT count(*), count(DISTINCT event_id) FROM raw.events'),
		"$count|$count", "$what: every event once");
	is($node->safe_psql($database, q{SELECT what, topic, partition, expected, found FROM pulse.verify('events') WHERE NOT ok}),
		'', "$what: verify finds nothing");
	is($node->safe_psql($database, q{SELECT count(*) FROM raw.dlq}), '0', "$what: no dead letter");
	return;
}

sub worker_pids
{
	my ($node) = @_;
	return split /\n/, $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pulse worker'});
}

sub pulse_processes
{
	my ($node, $condition) = @_;
	$condition //= 'true';
	return $node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pulse%' AND $condition");
}

sub seconds
{
	my ($code) = @_;
	my $began = time;
	$code->();
	return time - $began;
}

sub log_since
{
	my ($node, $position) = @_;
	return substr(slurp_file($node->logfile), $position);
}

sub no_signal_death
{
	my ($node, $what) = @_;
	unlike(slurp_file($node->logfile), qr/was terminated by signal|PANIC/, "$what: nobody died of a signal");
	return;
}

1;
