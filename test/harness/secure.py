"""A broker that also listens with TLS and asks for a password, beside its plain listener."""

import os
import shutil

from confluent_kafka.admin import (AclBinding, AclBindingFilter, AclOperation, AclPermissionType, ResourcePatternType,
                                   ResourceType)

from . import place
from .kafka import CLUSTER_ID, DEFAULT_VERSION, Broker

USER = "pulse"
PASSWORD = "Correct-Horse-7731"
SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")
# Kafka 4 and later refuse it from librdkafka before 2.6.1, and Debian 12 has 2.0.2.
SCRAM_WORKS = int(os.environ.get("KAFKA_VERSION", DEFAULT_VERSION).split(".")[0]) < 4
MECHANISMS = (*(SCRAM if SCRAM_WORKS else ()), "PLAIN")

LISTENERS = """
listeners=PLAINTEXT://127.0.0.1:{port},SECURE://127.0.0.1:{secure_port},{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SECURE://127.0.0.1:{advertised_port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL
sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512,PLAIN
listener.name.secure.scram-sha-256.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.secure.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.secure.plain.sasl.jaas.config=\
org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=true
"""


class SecureBroker(Broker):
    """As Broker; `secure_address` is the listener with SASL over TLS, `authority` the certificate
    that signed its own."""

    def create(self, behind=None):
        """With behind (a Proxy without target) clients of the secure listener are led there."""
        super().create()
        self.authority = self.directory / "authority.pem"
        self._make_certificates()
        secure_port = place.free_port()
        if behind is not None:
            behind.target_port = secure_port
        advertised_port = secure_port if behind is None else behind.port
        (self.directory / "secure-port").write_text(f"{advertised_port}\n")
        properties = self.directory / "server.properties"
        text = properties.read_text()
        controller = text.split("listeners=", 1)[1].split("\n", 1)[0].split(",")[1]
        # The last of two lines for a property counts.
        properties.write_text(text + LISTENERS.format(
            port=self.port, secure_port=secure_port, advertised_port=advertised_port,
            controller=controller, user=USER, password=PASSWORD, keystore=self.directory / "server.pem"))
        shutil.rmtree(self.data)
        scram = [part for mechanism in SCRAM for part in
                 ("--add-scram", f"{mechanism}=[name={USER},password={PASSWORD}]")]
        place.run(*self.distribution.java("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID,
                                          "-c", properties, *scram), as_server=True)
        return self

    @property
    def secure_address(self):
        return f"127.0.0.1:{(self.directory / 'secure-port').read_text().strip()}"

    def write_secrets(self, path, **properties):
        """The secrets file for it, replaced whole, as an operator edits it."""
        lines = {"sasl.username": USER, "sasl.password": PASSWORD, "ssl.ca.location": self.authority,
                 **{name.replace("__", "."): value for name, value in properties.items()}}
        new = path.with_suffix(".new")
        new.write_text("# of the test\n" + "".join(f"{key} = {value}\n" for key, value in lines.items()))
        new.chmod(0o600)
        place.give_to_server(new)
        os.rename(new, path)
        return path

    def forbid_write(self, topic):
        """Whoever comes with the password may read the topic, and not write it."""
        [rule] = self.admin.create_acls([AclBinding(*self._write_rule(topic))]).values()
        rule.result(30)

    def allow_write(self, topic):
        [rule] = self.admin.delete_acls([AclBindingFilter(*self._write_rule(topic))]).values()
        assert len(rule.result(30)) == 1

    @staticmethod
    def _write_rule(topic):
        return (ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, f"User:{USER}", "*", AclOperation.WRITE,
                AclPermissionType.DENY)

    def server_settings(self, mechanism="SCRAM-SHA-512" if SCRAM_WORKS else "PLAIN"):
        """To read from it, without the secrets."""
        return {"pulse__brokers": self.secure_address,
                "pulse__kafka_options": f"security.protocol=SASL_SSL, sasl.mechanism={mechanism}"}

    def _make_certificates(self):
        """An authority of our own, and the server's certificate for the loopback address."""
        def openssl(*arguments):
            place.run("openssl", *arguments)
        key, request = self.directory / "server.key", self.directory / "server.csr"
        certificate, names = self.directory / "server.crt", self.directory / "names"
        authority_key = self.directory / "authority.key"
        names.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj",
                "/CN=pulse test authority", "-keyout", authority_key, "-out", self.authority)
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-keyout", key,
                "-out", request)
        openssl("x509", "-req", "-in", request, "-CA", self.authority, "-CAkey", authority_key,
                "-CAcreateserial", "-days", "30", "-extfile", names, "-out", certificate)
        keystore = self.directory / "server.pem"
        keystore.write_text(key.read_text() + certificate.read_text() + self.authority.read_text())
        for path in (keystore, self.authority):
            place.give_to_server(path)
