#include "store/partition_tree.hpp"

#include "store/columns.hpp"
#include "pg/spi.hpp"

namespace pulse::store {

namespace {

// visit(form) for each trigger of the table, disabled ones too.
template <typename Visit>
void
VisitTriggers(Oid relation, Visit visit)
{
    Relation catalog = table_open(TriggerRelationId, AccessShareLock);
    ScanKeyData key;
    ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ,
                ObjectIdGetDatum(relation));
    SysScanDesc scan = systable_beginscan(catalog, TriggerRelidNameIndexId, true, nullptr, 1, &key);
    for (HeapTuple tuple = systable_getnext(scan); HeapTupleIsValid(tuple);
         tuple = systable_getnext(scan))
        visit(reinterpret_cast<Form_pg_trigger>(GETSTRUCT(tuple)));
    systable_endscan(scan);
    table_close(catalog, AccessShareLock);
}

// A row that goes through the target fires the statement triggers of the target only.
bool
DescribeTriggers(Oid member, Target *target)
{
    bool has_statement_triggers = false;
    VisitTriggers(member, [&](Form_pg_trigger trigger) {
        target->has_deferrable |= trigger->tgdeferrable;
        bool fires = trigger->tgenabled != TRIGGER_DISABLED && TRIGGER_FOR_INSERT(trigger->tgtype);
        bool is_of_rows = TRIGGER_FOR_ROW(trigger->tgtype);
        target->has_row_triggers |= fires && is_of_rows && TRIGGER_FOR_BEFORE(trigger->tgtype);
        has_statement_triggers |= fires && !is_of_rows;
    });
    return has_statement_triggers;
}

bool
HasIdentity(Relation relation)
{
    TupleDesc descriptor = RelationGetDescr(relation);
    for (int i = 0; i < descriptor->natts; i++)
        if (TupleDescAttr(descriptor, i)->attidentity != '\0')
            return true;
    return false;
}

// Null when pulse makes the partitions of the table. Not where a default partition would have to be
// searched for rows of each new one.
const char *
WhyUnmanaged(Relation relation, const PipelineDefinition &definition, Target *target)
{
    PartitionKey key = RelationGetPartitionKey(relation);
    if (key->strategy != PARTITION_STRATEGY_RANGE || key->partnatts != 1 ||
        key->partattrs[0] == 0 ||
        strcmp(get_attname(RelationGetRelid(relation), key->partattrs[0], false),
               "event_timestamp") != 0)
        return "it is not partitioned by range of event_timestamp alone";
    if (key->parttypid[0] != TIMESTAMPTZOID)
        return "event_timestamp is not timestamptz";
    const TargetColumn *column = FindColumn(target, "event_timestamp");
    if (column == nullptr || !column->is_required)
        return "event_timestamp may be NULL, or has a default";
    if (strcmp(definition.partition_unit, "none") == 0)
        return "partition_by is none";
    if (OidIsValid(get_default_partition_oid(RelationGetRelid(relation))))
        return "it has a default partition";
    return nullptr;
}

} // namespace

void
ListMembers(Target *target)
{
    // Without locks, which could be too many: what changes meanwhile comes as an invalidation.
    bool is_partitioned = get_rel_relkind(target->relation) == RELKIND_PARTITIONED_TABLE;
    List *members = is_partitioned ? find_all_inheritors(target->relation, NoLock, nullptr)
                                   : list_make1_oid(target->relation);
    list_sort(members, list_oid_cmp);
    target->members = static_cast<unsigned int *>(
        MemoryContextAlloc(TopMemoryContext, sizeof(unsigned int) * list_length(members)));
    ListCell *cell;
    foreach (cell, members)
        target->members[target->member_count++] = lfirst_oid(cell);
}

void
FreeMembers(Target *target)
{
    unsigned int *members = target->members;
    target->member_count = 0;
    target->members = nullptr;
    if (members != nullptr)
        pfree(members);
}

bool
IsMember(const Target &target, unsigned int relation)
{
    return target.members != nullptr && bsearch(&relation, target.members, target.member_count,
                                                sizeof(unsigned int), oid_cmp) != nullptr;
}

void
DescribeMembers(RelationData *relation, Target *target)
{
    bool has_statement_triggers = false;
    for (int i = 0; i < target->member_count; i++) {
        Oid member = target->members[i];
        HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(member));
        if (!HeapTupleIsValid(tuple))
            continue; // dropped meanwhile
        Form_pg_class form = reinterpret_cast<Form_pg_class>(GETSTRUCT(tuple));
        if (form->relkind == RELKIND_FOREIGN_TABLE ||
            form->relpersistence != RELPERSISTENCE_PERMANENT)
            ereport(ERROR,
                    (errcode(ERRCODE_WRONG_OBJECT_TYPE),
                     errmsg("partition %s of %s is foreign or not permanent",
                            quote_qualified_identifier(get_namespace_name(form->relnamespace),
                                                       NameStr(form->relname)),
                            target->qualified_name),
                     errhint("Rows must commit together with their offsets: detach it, or make it "
                             "a permanent table.")));
        bool has_triggers = form->relhastriggers;
        ReleaseSysCache(tuple);
        if (has_triggers && DescribeTriggers(member, target))
            has_statement_triggers |= member == target->relation;
    }
    // A row trigger may move the row to another partition: only the parent says so plainly. And
    // only the parent numbers rows: identity is not handed down.
    target->may_use_leaf = target->is_managed && !has_statement_triggers &&
                           !target->has_row_triggers && !relation->rd_rel->relrowsecurity &&
                           !HasIdentity(relation);
}

void
DescribePartitioning(RelationData *relation, const PipelineDefinition &definition, Target *target)
{
    if (relation->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
        return;
    target->is_partitioned = true;
    target->why_unmanaged = WhyUnmanaged(relation, definition, target);
    target->is_managed = target->why_unmanaged == nullptr;
    if (target->is_managed)
        FindColumn(target, "event_timestamp")->is_event_time = true;
}

unsigned int
FindLeaf(const Target &target, int64_t timestamp)
{
    Relation relation = table_open(target.relation, AccessShareLock);
    PartitionDesc description = RelationGetPartitionDesc(relation, true);
    PartitionKey key = RelationGetPartitionKey(relation);
    Oid leaf = InvalidOid;
    if (description->nparts > 0) {
        Datum value = TimestampTzGetDatum(timestamp);
        bool is_equal = false;
        int bound = partition_range_datum_bsearch(key->partsupfunc, key->partcollation,
                                                  description->boundinfo, 1, &value, &is_equal);
        int index = description->boundinfo->indexes[bound + 1];
        if (index >= 0)
            leaf = description->oids[index];
    }
    table_close(relation, NoLock);
    return leaf;
}

bool
MayWriteLeaf(const Target &target, unsigned int leaf)
{
    HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(leaf));
    if (!HeapTupleIsValid(tuple))
        return false;
    Form_pg_class form = reinterpret_cast<Form_pg_class>(GETSTRUCT(tuple));
    bool may = form->relkind == RELKIND_RELATION && form->relowner == target.owner &&
               !form->relhasrules && !form->relrowsecurity;
    bool has_triggers = form->relhastriggers;
    ReleaseSysCache(tuple);
    if (may && has_triggers)
        VisitTriggers(leaf, [&](Form_pg_trigger trigger) {
            may = may && (trigger->tgisinternal || OidIsValid(trigger->tgparentid));
        });
    return may;
}

} // namespace pulse::store
