-- The closed list of reasons for a dead letter: part of the contract, so a change shows up here.
\set SHOW_CONTEXT never
SELECT error_class, error_code FROM pulse.error_codes;
SELECT error_code AS without_words FROM pulse.error_codes WHERE coalesce(meaning, '') = '' OR coalesce(remedy, '') = '';
SELECT count(*) = count(DISTINCT error_code) AS is_unique FROM pulse.error_codes;
