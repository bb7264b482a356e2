-- preview, extract, test_connection: what can be said without a broker. Nothing of it reaches for one.
SELECT pulse.create_pipeline('look', ARRAY['looked_at']);
SELECT * FROM pulse.preview('nobody');
SELECT * FROM pulse.preview('look');
SELECT * FROM pulse.preview('look', -1);
SELECT * FROM pulse.preview(NULL);
SELECT * FROM pulse.extract('look', 'looked_at', 0, 5);
SELECT * FROM pulse.extract('look', 'looked_at', 0, -1);
SELECT * FROM pulse.extract('look', 'looked_at', 0, 9223372036854775807);
SELECT * FROM pulse.extract('look', 'looked_at', 0, 5, 4);
SELECT * FROM pulse.extract('look', NULL, 0, 5);
SELECT * FROM pulse.test_connection();
SELECT * FROM pulse.test_connection('look');
SELECT * FROM pulse.test_connection('nobody');
SELECT pulse.alter_pipeline('look', '{"brokers": "127.0.0.1:1", "secrets_file": "/nowhere/secrets"}');
SELECT * FROM pulse.test_connection('look');
SELECT * FROM pulse.preview('look');
-- Settings of the pipeline are gone after the call, also after one that failed.
SHOW pulse.brokers;
SELECT pulse.drop_pipeline('look');
