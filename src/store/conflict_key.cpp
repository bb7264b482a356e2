// Choice of the key; see conflict_key.hpp.
#include "store/conflict_key.hpp"

#include "store/columns.hpp"
#include "pg/spi.hpp"

namespace pulse::store {

namespace {

// A B-tree entry must fit a third of a page; longer keys would raise 54000 for ever.
constexpr uint32_t kMaxKeyBytes = 2600;

// What a unique index knows of a record that is read again; the better, the larger.
enum class Worth : uint8_t {
    kNothing,   // it can't be asked, or pulse does not fill it
    kMayDiffer, // the key may be made anew at each read: nextval(), now(), ingested_at
    kWhenGiven, // NULLs are distinct: nothing of a record that leaves a column out
    kAlways,
};

// OPERATOR(schema.=) of column i of the index: the search path of a worker has no user's types.
void
DescribeEquality(Oid index, int i, char *equality, size_t size)
{
    Relation relation = index_open(index, AccessShareLock);
    Oid type = relation->rd_opcintype[i];
    Oid operator_oid =
        get_opfamily_member(relation->rd_opfamily[i], type, type, BTEqualStrategyNumber);
    index_close(relation, NoLock);
    HeapTuple tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator_oid));
    if (!HeapTupleIsValid(tuple))
        elog(ERROR, "index %u has no equality", index);
    Form_pg_operator form = reinterpret_cast<Form_pg_operator>(GETSTRUCT(tuple));
    snprintf(equality, size, "OPERATOR(%s.%s)",
             quote_identifier(get_namespace_name(form->oprnamespace)), NameStr(form->oprname));
    ReleaseSysCache(tuple);
}

// Every record has one, and always the same.
bool
IsOfEveryRecord(ColumnSource source)
{
    return source == ColumnSource::kEventId || source == ColumnSource::kKafkaTopic ||
           source == ColumnSource::kKafkaPartition || source == ColumnSource::kKafkaOffset ||
           source == ColumnSource::kTopicEpoch;
}

// Whether a record has the same value at each read. An event may leave out what has a default.
bool
IsRepeated(Relation relation, Target *target, AttrNumber attribute)
{
    const TargetColumn *column =
        FindColumn(target, get_attname(RelationGetRelid(relation), attribute, false));
    if (column == nullptr)
        return false; // an identity: numbered anew
    if (IsOfEveryRecord(column->source))
        return true;
    return column->source != ColumnSource::kIngestedAt &&
           (!column->has_default ||
            !contain_mutable_functions(build_column_default(relation, attribute)));
}

// visit(attribute) for each column that a generated one is made of.
template <typename Visit>
void
VisitSources(Relation relation, AttrNumber attribute, Visit visit)
{
    Bitmapset *sources = nullptr;
    pull_varattnos(build_column_default(relation, attribute), 1, &sources);
    for (int i = bms_next_member(sources, -1); i >= 0; i = bms_next_member(sources, i))
        visit(static_cast<AttrNumber>(i + FirstLowInvalidHeapAttributeNumber));
}

// A generated column is what the columns it is made of are.
bool
IsGeneratedAgain(Relation relation, Target *target, AttrNumber attribute)
{
    bool is_repeated = true;
    VisitSources(relation, attribute, [&](AttrNumber source) {
        is_repeated = is_repeated && source > 0 && IsRepeated(relation, target, source);
    });
    return is_repeated;
}

bool
IsNeverNull(Form_pg_attribute attribute, Target *target)
{
    const TargetColumn *column = FindColumn(target, NameStr(attribute->attname));
    return attribute->attnotnull ||
           (column != nullptr && (column->is_required || IsOfEveryRecord(column->source)));
}

Worth
WorthOf(Relation relation, Target *target, HeapTuple tuple)
{
    Form_pg_index form = reinterpret_cast<Form_pg_index>(GETSTRUCT(tuple));
    if (!form->indisunique || !form->indimmediate || !form->indisvalid ||
        !heap_attisnull(tuple, Anum_pg_index_indpred, nullptr) ||
        !heap_attisnull(tuple, Anum_pg_index_indexprs, nullptr))
        return Worth::kNothing;
    Worth worth = Worth::kAlways;
    for (int i = 0; i < form->indnkeyatts; i++) {
        AttrNumber number = form->indkey.values[i];
        Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(relation), number - 1);
        if (attribute->attidentity != '\0')
            return Worth::kNothing;
        bool is_repeated = attribute->attgenerated != '\0'
                               ? IsGeneratedAgain(relation, target, number)
                               : IsRepeated(relation, target, number);
        if (!is_repeated)
            worth = Worth::kMayDiffer;
        else if (!form->indnullsnotdistinct && !IsNeverNull(attribute, target))
            worth = Min(worth, Worth::kWhenGiven);
    }
    return worth;
}

// The unique index that knows most, of equal ones the primary key; InvalidOid when none can.
Oid
ChooseIndex(Relation relation, Target *target)
{
    List *indexes = RelationGetIndexList(relation);
    Oid primary = RelationGetPrimaryKeyIndex(relation);
    Oid chosen = InvalidOid;
    Worth best = Worth::kNothing;
    bool has_deferrable = false;
    ListCell *cell;
    foreach (cell, indexes) {
        Oid index = lfirst_oid(cell);
        HeapTuple tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
        if (!HeapTupleIsValid(tuple))
            continue;
        Form_pg_index form = reinterpret_cast<Form_pg_index>(GETSTRUCT(tuple));
        has_deferrable |= form->indisunique && !form->indimmediate;
        Worth worth = WorthOf(relation, target, tuple);
        if (worth > best || (worth == best && worth != Worth::kNothing && index == primary)) {
            chosen = index;
            best = worth;
            target->has_distinct_nulls = !form->indnullsnotdistinct;
        }
        ReleaseSysCache(tuple);
    }
    if (!OidIsValid(chosen) && has_deferrable)
        ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                        errmsg("the only unique key of %s is deferrable", target->qualified_name),
                        errhint("It can't tell duplicates when they come: make it NOT DEFERRABLE, "
                                "or drop it and take duplicates.")));
    target->tells_duplicates = best == Worth::kAlways;
    return chosen;
}

// What a record's key is made of, so that it can be looked for before it is a row.
void
DescribeSources(Relation relation, AttrNumber attribute, Target *target, ConflictKey *key)
{
    Oid oid = RelationGetRelid(relation);
    if (TargetColumn *column = FindColumn(target, key->name)) {
        LimitBytes(column, kMaxKeyBytes);
        column->is_of_key = true;
        return;
    }
    VisitSources(relation, attribute, [&](AttrNumber source) {
        if (TargetColumn *column = FindColumn(target, get_attname(oid, source, false)))
            column->is_of_key = true;
    });
    const char *sql = deparse_expression(build_column_default(relation, attribute),
                                         deparse_context_for("b", oid), true, false);
    key->generated = MemoryContextStrdup(TopMemoryContext, sql);
}

} // namespace

void
DescribeConflictKey(RelationData *relation, Target *target)
{
    Oid chosen = ChooseIndex(relation, target);
    if (!OidIsValid(chosen))
        return;
    StringInfoData columns;
    initStringInfo(&columns);
    HeapTuple tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(chosen));
    Form_pg_index form = reinterpret_cast<Form_pg_index>(GETSTRUCT(tuple));
    for (int i = 0; i < form->indnkeyatts; i++) {
        const char *name = get_attname(RelationGetRelid(relation), form->indkey.values[i], false);
        appendStringInfo(&columns, "%s%s", i == 0 ? "" : ", ", quote_identifier(name));
        ConflictKey *key = &target->conflict_keys[target->conflict_key_count++];
        pg::CopyText(key->name, sizeof(key->name), name);
        DescribeEquality(chosen, i, key->equality, sizeof(key->equality));
        DescribeSources(relation, form->indkey.values[i], target, key);
    }
    ReleaseSysCache(tuple);
    if (columns.len >= static_cast<int>(sizeof(target->conflict_columns)))
        ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                        errmsg("the unique key of %s is too wide", target->qualified_name),
                        errhint("Names of its columns may have 1023 bytes together.")));
    strcpy(target->conflict_columns, columns.data);
}

} // namespace pulse::store
