"""A broker's hands for tests that have no Kafka client: a Unix socket that takes one line a request.

    feed TOPIC PARTITIONS COUNT SEED     creates the topic unless it is there, sends COUNT events

The answer is `ok`, or what went wrong. TAP tests reach it through $ENV{PULSE_FEEDER}
(test/perl/PulseTest.pm); they run as the server's user, who may not reach this clone.
"""

import os
import socketserver
import threading
from contextlib import contextmanager

from .events import stream


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            try:
                self.serve(line.decode().split())
                answer = "ok"
            except Exception as error:  # the test that asked fails with it
                answer = f"{type(error).__name__}: {error}".replace("\n", " ")
            self.wfile.write(f"{answer}\n".encode())

    def serve(self, words):
        command, topic, partitions, count, seed = words
        if command != "feed":
            raise ValueError(f"no such command: {command}")
        broker = self.server.broker
        if topic not in broker.topics():
            broker.create_topic(topic, partitions=int(partitions))
        producer = broker.producer()
        for key, value in stream(int(count), seed=int(seed)):
            while True:
                try:
                    producer.produce(topic, value, key)
                    break
                except BufferError:
                    producer.poll(1)
        if producer.flush(60) != 0:
            raise TimeoutError("events are still unsent")


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextmanager
def feeder(broker, path):
    with Server(str(path), Handler) as server:
        server.broker = broker
        os.chmod(path, 0o777)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield path
        finally:
            server.shutdown()
            thread.join()
