// What may be set, what is refused and how it is said: src/kafka/config.cpp, secrets.cpp,
// events.cpp.
#include "kafka/config.hpp"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sys/stat.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "kafka/consumer.hpp"
#include "kafka/events.hpp"
#include "kafka/handles.hpp"

namespace pulse::kafka {

namespace {

bool
Contains(const std::string &text, const std::string &part)
{
    return text.find(part) != std::string::npos;
}

std::string
Get(const ConfHandle &conf, const char *key)
{
    char value[512] = "";
    size_t size = sizeof(value);
    EXPECT_EQ(rd_kafka_conf_get(conf.get(), key, value, &size), RD_KAFKA_CONF_OK) << key;
    return value;
}

Config
SomeConfig()
{
    Config config;
    config.brokers = "localhost:1";
    config.client_id = "pulse-test";
    return config;
}

class SecretsFile : public testing::Test {
  protected:
    void SetUp() override
    {
        char name[] = "/tmp/pulse-secrets-XXXXXX";
        int fd = mkstemp(name);
        ASSERT_GE(fd, 0);
        close(fd);
        path_ = name;
    }

    void TearDown() override { unlink(path_.c_str()); }

    Result<Properties> Read(const std::string &text, mode_t mode)
    {
        chmod(path_.c_str(), 0600);
        std::ofstream(path_, std::ios::binary) << text;
        chmod(path_.c_str(), mode);
        return ReadSecretsFile(path_);
    }

    std::string path_;
};

TEST(ParsePropertiesTest, ReadsListsAndLines)
{
    Result<Properties> list = ParseProperties(" a = b ,c=d=e,, f=", ',');
    ASSERT_TRUE(list.ok());
    EXPECT_EQ(list.value(), (Properties{{"a", "b"}, {"c", "d=e"}, {"f", ""}}));

    Result<Properties> lines = ParseProperties("# note\n\na=b\r\n  c = x, y \n#d=e", '\n');
    ASSERT_TRUE(lines.ok());
    EXPECT_EQ(lines.value(), (Properties{{"a", "b"}, {"c", "x, y"}}));

    Result<Properties> empty = ParseProperties("", ',');
    ASSERT_TRUE(empty.ok());
    EXPECT_TRUE(empty.value().empty());
}

TEST(ParsePropertiesTest, NamesTheBadItem)
{
    Result<Properties> no_equals = ParseProperties("a=b, broken, c=d", ',');
    ASSERT_FALSE(no_equals.ok());
    EXPECT_TRUE(Contains(no_equals.message(), "\"broken\"")) << no_equals.message();
    EXPECT_FALSE(ParseProperties("=x", ',').ok());
}

TEST(CheckOptionsTest, AcceptsWhatIsOnTheList)
{
    Status status = CheckOptions({{"security.protocol", "SASL_SSL"},
                                  {"sasl.mechanism", "SCRAM-SHA-512"},
                                  {"sasl.username", "pulse"},
                                  {"ssl.endpoint.identification.algorithm", "https"},
                                  {"socket.timeout.ms", "20000"},
                                  {"fetch.message.max.bytes", "2097152"},
                                  {"compression.type", "lz4"},
                                  {"delivery.timeout.ms", "30000"},
                                  {"broker.address.family", "v4"}});
    EXPECT_TRUE(status.ok()) << status.message();
    EXPECT_TRUE(CheckOptions({}).ok());
}

TEST(CheckOptionsTest, RefusesWhatCouldHarmTheServer)
{
    for (const char *key :
         {"plugin.library.paths", "sasl.kerberos.kinit.cmd", "ssl.engine.location", "debug",
          "internal.termination.signal", "client.rack", "sasl.oauthbearer.token.endpoint.url",
          "ssl.providers", "test.mock.num.brokers", "interceptors", "no.such.property", ""}) {
        Status status = CheckOptions({{key, "1"}});
        ASSERT_FALSE(status.ok()) << key;
        EXPECT_TRUE(Contains(status.message(), "\"" + std::string(key) + "\" is not allowed"))
            << status.message();
    }
}

TEST(CheckOptionsTest, SaysWhenPulseSetsItItself)
{
    for (const char *key : {"enable.auto.commit", "auto.offset.reset", "isolation.level",
                            "group.id", "bootstrap.servers", "client.id", "check.crcs", "log.queue",
                            "queued.max.messages.kbytes", "enable.idempotence", "acks"}) {
        Status status = CheckOptions({{key, "1"}});
        ASSERT_FALSE(status.ok()) << key;
        EXPECT_TRUE(Contains(status.message(), std::string("\"") + key + "\" is set by pulse"))
            << status.message();
    }
}

TEST(CheckOptionsTest, SendsSecretsToTheirFile)
{
    for (const char *key :
         {"sasl.password", "ssl.ca.location", "ssl.key.location", "ssl.key.pem"}) {
        Status status = CheckOptions({{key, "hunter2"}});
        ASSERT_FALSE(status.ok()) << key;
        EXPECT_TRUE(Contains(status.message(), "secrets file only")) << status.message();
        EXPECT_FALSE(Contains(status.message(), "hunter2"));
    }
}

TEST(CheckOptionsTest, ReturnsTheLibrarysOwnMessageForBadValues)
{
    Status status = CheckOptions({{"socket.timeout.ms", "soon"}});
    ASSERT_FALSE(status.ok());
    EXPECT_TRUE(Contains(status.message(), "socket.timeout.ms")) << status.message();
    EXPECT_FALSE(CheckOptions({{"socket.timeout.ms", "999999999"}}).ok());
    EXPECT_FALSE(CheckOptions({{"compression.type", "rar"}}).ok());
    EXPECT_FALSE(CheckOptions({{"broker.address.family", std::string("v4\0x", 4)}}).ok());
    Status twice = CheckOptions({{"linger.ms", "1"}, {"linger.ms", "2"}});
    ASSERT_FALSE(twice.ok());
    EXPECT_TRUE(Contains(twice.message(), "given twice")) << twice.message();
}

TEST(CheckOptionsTest, RefusesMechanismsThatRunCommands)
{
    for (const char *mechanism : {"GSSAPI", "OAUTHBEARER", "plain", ""}) {
        EXPECT_FALSE(CheckOptions({{"sasl.mechanism", mechanism}}).ok()) << mechanism;
        EXPECT_FALSE(CheckOptions({{"sasl.mechanisms", mechanism}}).ok()) << mechanism;
        EXPECT_FALSE(CheckSecrets({{"sasl.mechanism", mechanism}}).ok()) << mechanism;
    }
    // Without a mechanism librdkafka would choose GSSAPI and call kinit.
    Config config = SomeConfig();
    config.options = {{"security.protocol", "Sasl_Plaintext"}};
    Result<std::unique_ptr<Consumer>> consumer = Consumer::Create(config);
    ASSERT_FALSE(consumer.ok());
    EXPECT_TRUE(Contains(consumer.message(), "sasl.mechanism")) << consumer.message();
}

TEST(CheckSecretsTest, AcceptsOnlyCredentials)
{
    EXPECT_TRUE(CheckSecrets({{"sasl.username", "u"},
                              {"sasl.password", "p"},
                              {"ssl.ca.location", "/etc/ssl/certs/ca.pem"},
                              {"ssl.key.password", "p"}})
                    .ok());
    for (const char *key : {"bootstrap.servers", "socket.timeout.ms", "plugin.library.paths",
                            "sasl.oauthbearer.client.secret", "sasl.kerberos.keytab"}) {
        Status status = CheckSecrets({{key, "hunter2"}});
        ASSERT_FALSE(status.ok()) << key;
        EXPECT_FALSE(Contains(status.message(), "hunter2"));
        EXPECT_TRUE(Contains(status.message(), key));
    }
}

TEST_F(SecretsFile, IsRead)
{
    Result<Properties> secrets =
        Read("# broker login\nsasl.username = pulse\nsasl.password=a=b#c \n"
             "ssl.ca.pem=-----BEGIN-----\\nMII\\n-----END-----\n",
             0600);
    ASSERT_TRUE(secrets.ok()) << secrets.message();
    EXPECT_EQ(secrets.value(), (Properties{{"sasl.username", "pulse"},
                                           {"sasl.password", "a=b#c"},
                                           {"ssl.ca.pem", "-----BEGIN-----\nMII\n-----END-----"}}));
    EXPECT_TRUE(Read("", 0400).ok());
}

TEST_F(SecretsFile, IsRefusedWhenOthersCanReachIt)
{
    for (mode_t mode : {0640, 0604, 0660, 0610, 0666}) {
        Result<Properties> secrets = Read("sasl.password=hunter2\n", mode);
        ASSERT_FALSE(secrets.ok()) << std::oct << mode;
        EXPECT_TRUE(Contains(secrets.message(), "0600")) << secrets.message();
    }
}

TEST_F(SecretsFile, ErrorsNeverRepeatAValue)
{
    for (const char *text :
         {"sasl.password hunter2\n", "hunter2\n", "=hunter2\n", "hunter2==\n",
          "sasl.username=x\nsasl.mechanism=hunter2\n", "debug=hunter2\n",
          "sasl.password=x\nsasl.password=hunter2\n", "sasl.kerberos.keytab=hunter2\n"}) {
        Result<Properties> secrets = Read(text, 0600);
        ASSERT_FALSE(secrets.ok()) << text;
        EXPECT_FALSE(Contains(secrets.message(), "hunter2")) << secrets.message();
    }
    Result<Properties> zero = Read(std::string("sasl.password=hun\0ter2\n", 23), 0600);
    ASSERT_FALSE(zero.ok());
    EXPECT_FALSE(Contains(zero.message(), "hun\0")) << zero.message();
}

TEST_F(SecretsFile, MustBeAFileOfModestSize)
{
    EXPECT_FALSE(ReadSecretsFile("/tmp").ok());
    EXPECT_FALSE(ReadSecretsFile("/dev/null").ok());
    EXPECT_FALSE(ReadSecretsFile(path_ + ".missing").ok());
    EXPECT_FALSE(Read(std::string(1024 * 1024 + 1, '\n'), 0600).ok());
    std::string fifo = path_ + ".fifo";
    ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
    EXPECT_FALSE(ReadSecretsFile(fifo).ok()); // and returns at once
    unlink(fifo.c_str());
}

TEST(BuildConfTest, FixedSettingsWinAndDefaultsYield)
{
    Config config = SomeConfig();
    config.options = {{"fetch.wait.max.ms", "50"}, {"linger.ms", "20"}};
    Result<ConfHandle> conf = BuildConf(config, ClientRole::kConsumer);
    ASSERT_TRUE(conf.ok()) << conf.message();
    EXPECT_EQ(Get(conf.value(), "fetch.wait.max.ms"), "50");
    EXPECT_EQ(Get(conf.value(), "enable.auto.commit"), "false");
    EXPECT_EQ(Get(conf.value(), "enable.auto.offset.store"), "false");
    EXPECT_EQ(Get(conf.value(), "auto.offset.reset"), "error");
    EXPECT_EQ(Get(conf.value(), "isolation.level"), "read_committed");
    EXPECT_EQ(Get(conf.value(), "check.crcs"), "true");
    EXPECT_EQ(Get(conf.value(), "enable.partition.eof"), "true");
    EXPECT_EQ(Get(conf.value(), "allow.auto.create.topics"), "false");
    EXPECT_EQ(Get(conf.value(), "log.queue"), "true");
    EXPECT_EQ(Get(conf.value(), "queued.max.messages.kbytes"), "32768");
    EXPECT_EQ(Get(conf.value(), "fetch.max.bytes"), "524288"); // 1/64 of the queue
    EXPECT_EQ(Get(conf.value(), "receive.message.max.bytes"), "33554432");
    EXPECT_EQ(Get(conf.value(), "reconnect.backoff.max.ms"), "2000");
    EXPECT_EQ(Get(conf.value(), "client.id"), "pulse-test");
    EXPECT_FALSE(Get(conf.value(), "group.id").empty());

    Result<ConfHandle> producer = BuildConf(config, ClientRole::kProducer);
    ASSERT_TRUE(producer.ok()) << producer.message();
    EXPECT_EQ(Get(producer.value(), "linger.ms"), "20");
    EXPECT_EQ(Get(producer.value(), "enable.idempotence"), "true");
}

TEST(BuildConfTest, RefusesWhatItCannotUse)
{
    Config config = SomeConfig();
    config.client_id = std::string(33, 'x');
    EXPECT_FALSE(BuildConf(config, ClientRole::kConsumer).ok());
    config = SomeConfig();
    config.brokers.clear();
    EXPECT_FALSE(BuildConf(config, ClientRole::kConsumer).ok());
    config = SomeConfig();
    config.options = {{"debug", "all"}};
    EXPECT_FALSE(BuildConf(config, ClientRole::kConsumer).ok());
    config = SomeConfig();
    config.secrets = {{"socket.timeout.ms", "1000"}};
    EXPECT_FALSE(BuildConf(config, ClientRole::kConsumer).ok());
}

TEST(BuildConfTest, KeepsTheQueueWithinTheLibrarysLimits)
{
    Config config = SomeConfig();
    config.queue_bytes = 0;
    Result<ConfHandle> small = BuildConf(config, ClientRole::kConsumer);
    ASSERT_TRUE(small.ok()) << small.message();
    EXPECT_EQ(Get(small.value(), "queued.max.messages.kbytes"), "1024");
    EXPECT_EQ(Get(small.value(), "fetch.max.bytes"), "262144");
    config.queue_bytes = int64_t{1} << 50;
    Result<ConfHandle> large = BuildConf(config, ClientRole::kConsumer);
    ASSERT_TRUE(large.ok()) << large.message();
    EXPECT_EQ(Get(large.value(), "fetch.max.bytes"), "8388608");
}

TEST(NewClientTest, HidesSecretsInTheReason)
{
    Config config = SomeConfig();
    config.options = {{"security.protocol", "ssl"}};
    config.secrets = {{"ssl.ca.location", "/nonexistent/hunter2.pem"}};
    Result<std::unique_ptr<Consumer>> consumer = Consumer::Create(config);
    ASSERT_FALSE(consumer.ok());
    EXPECT_FALSE(Contains(consumer.message(), "hunter2")) << consumer.message();
}

TEST(CheckVersionTest, RefusesVersionsThatLoseRecords)
{
    EXPECT_TRUE(CheckVersion(0x020002ff).ok());
    EXPECT_TRUE(CheckVersion(0x020b01ff).ok());
    EXPECT_TRUE(CheckVersion(0x020f00ff).ok());
    EXPECT_TRUE(CheckVersion(0x030000ff).ok());
    for (int version :
         {0x010900ff, 0x020000ff, 0x020001ff, 0x020100ff, 0x020300ff, 0x020a01ff, 0x020b00ff})
        EXPECT_FALSE(CheckVersion(version).ok()) << std::hex << version;
    EXPECT_TRUE(Contains(CheckVersion(0x020a01ff).message(), "librdkafka 2.10.1 "))
        << CheckVersion(0x020a01ff).message();
    EXPECT_TRUE(CheckLibraryVersion().ok());
}

TEST(ClientEventsTest, KeepsTheFirstAndCountsTheRest)
{
    ClientEvents events;
    for (int number = 0; number < 1000; ++number) {
        events.AddLog(6, "FAC", std::to_string(number).c_str());
        events.AddError(-195, "_TRANSPORT", std::to_string(number).c_str(), false);
    }
    events.AddError(-150, "_FATAL", "the end", true);
    ClientEvent event;
    size_t errors = 0;
    size_t logs = 0;
    bool has_fatal = false;
    std::string last;
    while (events.Pop(&event)) {
        ++(event.is_log ? logs : errors);
        has_fatal = has_fatal || event.is_fatal;
        last = event.text;
    }
    EXPECT_EQ(errors, ClientEvents::kMaxErrors + 1);
    EXPECT_EQ(logs, ClientEvents::kMaxLogs + 1);
    EXPECT_TRUE(has_fatal);
    EXPECT_TRUE(Contains(last, "936 errors and 744 log lines")) << last;
    EXPECT_TRUE(events.empty());
    events.AddLog(3, nullptr, nullptr);
    EXPECT_TRUE(events.Pop(&event));
    EXPECT_FALSE(events.Pop(&event));
}

} // namespace

} // namespace pulse::kafka
