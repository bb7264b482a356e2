"""Random JSON Schemas (draft 4) and documents that are likely to touch what they ask for. Seeded."""

import json
import os
import random as random_module

import psycopg

REFUSED = psycopg.errors.InvalidParameterValue

NAMES = ["a", "b", "ab", "x~y", "x/y", "ä", "n1", "n22", ""]
TEXTS = ["", "a", "b", "ab", "abc", "aab", "ba", "a1", "12", "x-1", "a b", "ä", "ää1", "A", "zz-09", "..", "[a]", "a\\b",
         "a" * 30, "ab" * 12, "-", "^", "_"]
# Beyond 2**53 a double has no exact multiples.
NUMBERS = [0, 1, -1, 2, 3, 4, 5, 10, 12, -7, 100, 0.5, 1.0, 2.5, -0.5, 1e3, 4.0, 123456789012, -2**53, 2**63, 2**64 - 1, 1e12]
KINDS = ["null", "boolean", "object", "array", "string", "number", "integer"]
ATOMS = ["a", "b", "ab", "[a-c]", "[^a]", "\\d", "\\w", "\\s", "\\D", ".", "(ab)", "(a|b)", "(?:a|bb)", "\\.", "-", "[a\\-z]", "[-a]",
         "[\\d_]", "\\[", "(a|b+)", "(b?a)", "ä", "\\u00e4", "(a|(b|\\d))"]
REPEATS = ["", "", "", "?", "*", "+", "{2}", "{1,2}", "{2,}", "{0,2}", "*?", "+?"]


def seed():
    return int(os.environ.get("PULSE_TEST_SEED") or random_module.SystemRandom().getrandbits(31))


def pattern(random):
    def sequence():
        return "".join(random.choice(ATOMS) + random.choice(REPEATS) for _ in range(random.randint(1, 3)))
    body = "|".join(sequence() for _ in range(random.choice([1, 1, 1, 2])))
    if random.random() < 0.4:
        body = f"({body})" + random.choice(REPEATS)
    return random.choice(["", "^"]) + body + random.choice(["", "$"])


def scalar(random):
    return random.choice([None, True, False, random.choice(NUMBERS), random.choice(NUMBERS), random.choice(TEXTS),
                          random.choice(TEXTS)])


def document(random, depth=3):
    kind = random.random()
    if depth == 0 or kind < 0.5:
        return scalar(random)
    if kind < 0.7:
        return [document(random, depth - 1) for _ in range(random.randint(0, 4))]
    return {random.choice(NAMES): document(random, depth - 1) for _ in range(random.randint(0, 4))}


def schema(random, depth=3, definitions=()):
    """definitions: pointers that may be referred to"""
    if definitions and random.random() < 0.15:
        return {"$ref": random.choice(definitions)}
    result = {}
    for _ in range(random.choice([0, 1, 1, 2, 2, 3, 4])):
        keyword = random.choice(FREQUENT)
        KEYWORDS[keyword](result, keyword, random, lambda: schema(random, depth - 1, definitions) if depth > 0 else {})
    return result


def whole_schema(random, definitions="#/definitions/"):
    """definitions: the pointer that its own ones will have"""
    names = [f"d{number}" for number in range(random.choice([0, 0, 1, 2]))]
    pointers = [definitions + name for name in names]
    result = schema(random, definitions=pointers)
    if names and "$ref" not in result:
        # Each may refer to those before it only.
        result["definitions"] = {name: schema(random, 2, pointers[:number]) for number, name in enumerate(names)}
    elif names:
        return {}
    return result


def for_python(schema):
    """The same with patterns that mean in Python what they mean in ECMA 262: \\w and \\d are of ASCII there."""
    if isinstance(schema, list):
        return [for_python(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {name: for_python(part) for name, part in schema.items()}
    if isinstance(result.get("pattern"), str):
        result["pattern"] = f"(?a:{result['pattern']})"
    if "patternProperties" in result:
        result["patternProperties"] = {f"(?a:{name})": part for name, part in result["patternProperties"].items()}
    return result


def names(random):
    return random.sample(NAMES, random.randint(1, 3))


def some(random, below, least=1):
    return [below() for _ in range(random.randint(least, 3))]


def put(value):
    def keyword(result, name, random, below):
        result[name] = value(random, below)
    return keyword


def exclusive(limit):
    def keyword(result, name, random, below):
        result.setdefault(limit, random.choice(NUMBERS))
        result[name] = random.random() < 0.7
    return keyword


def dependencies(random, below):
    return {name: names(random) if random.random() < 0.5 else below() for name in names(random)}


def properties(random, below):
    return {name: below() for name in names(random)}


KEYWORDS = {
    "type": put(lambda random, _: random.choice(KINDS) if random.random() < 0.7 else random.sample(KINDS, random.randint(1, 3))),
    "enum": put(lambda random, _: list({json.dumps(value): value for value in (scalar(random) for _ in range(4))}.values())),
    "allOf": put(some), "anyOf": put(some), "oneOf": put(some), "not": put(lambda _, below: below()),
    "minimum": put(lambda random, _: random.choice(NUMBERS)), "maximum": put(lambda random, _: random.choice(NUMBERS)),
    "exclusiveMinimum": exclusive("minimum"), "exclusiveMaximum": exclusive("maximum"),
    "multipleOf": put(lambda random, _: random.choice([1, 2, 3, 5, 7, 100])),
    "minLength": put(lambda random, _: random.randint(0, 4)), "maxLength": put(lambda random, _: random.randint(0, 12)),
    "pattern": put(lambda random, _: pattern(random)),
    "properties": put(properties),
    "patternProperties": put(lambda random, below: {pattern(random): below() for _ in range(random.randint(1, 2))}),
    "additionalProperties": put(lambda random, below: random.choice([True, False, below()])),
    "required": put(lambda random, _: names(random)), "dependencies": put(dependencies),
    "minProperties": put(lambda random, _: random.randint(0, 3)), "maxProperties": put(lambda random, _: random.randint(0, 4)),
    "items": put(lambda random, below: below() if random.random() < 0.6 else some(random, below)),
    "additionalItems": put(lambda random, below: random.choice([True, False, below()])),
    "minItems": put(lambda random, _: random.randint(0, 3)), "maxItems": put(lambda random, _: random.randint(0, 4)),
    "title": put(lambda random, _: "a title"), "default": put(lambda random, _: {"$ref": "#/nowhere"}),
}
FREQUENT = [*KEYWORDS, *["properties", "items", "type", "pattern", "enum"] * 2]
