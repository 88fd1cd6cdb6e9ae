
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Many JSON objects made one, by a table.  A tree of what was met so far is
 * kept, which points into the texts; a string that is told in pieces is a
 * list of them.  Memory is taken in blocks, all of it is given back at once.
 * Limits: members of an object, objects of a list.
 */


#include <string.h>

#include "llm_fold.h"


#define LLM_FOLD_BLOCK      4096       /* bytes of the first block */
#define LLM_FOLD_BLOCK_MAX  65536
#define LLM_FOLD_MEMBERS    64         /* of an object */
#define LLM_FOLD_COMPARED   4096       /* bytes of an object that may have more
                                          members than another, */
#define LLM_FOLD_HELD       16         /* which has no more than these */


struct llm_fold_block_s {
    llm_fold_block_t        *next;
};


static void *llm_fold_alloc(llm_fold_t *f, size_t size);
static llm_fold_node_t *llm_fold_node(llm_fold_t *f,
    const llm_fold_rules_t *rules, uint64_t index);
static llm_int_t llm_fold_into(llm_fold_t *f, llm_fold_node_t *node,
    const llm_str_t *object);
static llm_uint_t llm_fold_place(const llm_fold_rules_t *rules,
    const llm_str_t *name);
static llm_int_t llm_fold_find(llm_fold_t *f, llm_fold_node_t *node,
    llm_uint_t place, const llm_str_t *name, llm_fold_member_t **found);
static llm_int_t llm_fold_value(llm_fold_t *f, llm_fold_node_t *node,
    llm_fold_member_t *m, const llm_json_value_t *v);
static void llm_fold_take(llm_fold_member_t *m, const llm_json_value_t *v);
static llm_int_t llm_fold_same(llm_fold_member_t *m,
    const llm_json_value_t *v);
static llm_uint_t llm_fold_holds(const llm_json_value_t *large,
    const llm_json_value_t *small);
static llm_int_t llm_fold_guess(llm_fold_t *f, llm_fold_member_t *m,
    const llm_json_value_t *v);
static llm_int_t llm_fold_text(llm_fold_t *f, llm_fold_member_t *m,
    const llm_json_value_t *v);
static llm_int_t llm_fold_items(llm_fold_t *f, llm_fold_member_t *m,
    const llm_json_value_t *v);
static llm_int_t llm_fold_piece(llm_fold_t *f, llm_fold_member_t *m,
    u_char *start, u_char *end);
static llm_int_t llm_fold_object(llm_fold_t *f, llm_fold_member_t *m,
    const llm_fold_rule_t *rule, const llm_json_value_t *v);
static llm_int_t llm_fold_list(llm_fold_t *f, llm_fold_member_t *m,
    const llm_fold_rule_t *rule, const llm_json_value_t *v);
static llm_int_t llm_fold_indexed(llm_fold_t *f, llm_fold_member_t *m,
    const llm_fold_rule_t *rule, uint64_t index);
static void llm_fold_write(llm_out_t *o, const void *data);
static void llm_fold_write_member(llm_out_t *o, const llm_fold_node_t *node,
    const llm_fold_member_t *m);
static void llm_fold_write_pieces(llm_out_t *o, const llm_fold_member_t *m);
static void llm_fold_write_list(llm_out_t *o, const llm_fold_member_t *m);


llm_int_t
llm_fold_init(llm_fold_t *f, const llm_mem_t *mem,
    const llm_fold_rules_t *rules)
{
    memset(f, 0, sizeof(llm_fold_t));

    f->mem = mem;
    f->size = LLM_FOLD_BLOCK;
    f->root = llm_fold_node(f, rules, 0);

    return f->root ? LLM_OK : LLM_ERROR;
}


void
llm_fold_free(llm_fold_t *f)
{
    llm_fold_block_t  *block;

    while (f->blocks) {
        block = f->blocks;
        f->blocks = block->next;

        if (f->mem->free) {
            f->mem->free(f->mem->ctx, block);
        }
    }
}


/* zeroed */

static void *
llm_fold_alloc(llm_fold_t *f, size_t size)
{
    void              *p;
    size_t             need;
    llm_fold_block_t  *block;

    size = (size + sizeof(void *) - 1) & ~(sizeof(void *) - 1);

    if ((size_t) (f->last - f->pos) < size) {
        need = sizeof(llm_fold_block_t) + size;

        if (need < f->size) {
            need = f->size;
        }

        block = f->mem->alloc(f->mem->ctx, need);
        if (block == NULL) {
            return NULL;
        }

        block->next = f->blocks;
        f->blocks = block;
        f->pos = (u_char *) (block + 1);
        f->last = (u_char *) block + need;

        if (f->size < LLM_FOLD_BLOCK_MAX) {
            f->size *= 2;
        }
    }

    p = f->pos;
    f->pos += size;

    return memset(p, 0, size);
}


static llm_fold_node_t *
llm_fold_node(llm_fold_t *f, const llm_fold_rules_t *rules, uint64_t index)
{
    llm_fold_node_t  *node;

    node = llm_fold_alloc(f, sizeof(llm_fold_node_t));

    if (node) {
        node->rules = rules;
        node->index = index;
    }

    return node;
}


llm_str_t
llm_fold_copy(llm_fold_t *f, const llm_str_t *text)
{
    llm_str_t  copy;

    copy.len = text->len;
    copy.data = llm_fold_alloc(f, text->len + 1);

    if (copy.data && text->len) {
        memcpy(copy.data, text->data, text->len);
    }

    return copy;
}


llm_int_t
llm_fold_add(llm_fold_t *f, const llm_str_t *object)
{
    return llm_fold_into(f, f->root, object);
}


static llm_int_t
llm_fold_into(llm_fold_t *f, llm_fold_node_t *node, const llm_str_t *object)
{
    u_char             *pos;
    uint64_t            visit;
    llm_int_t           rc;
    llm_str_t           name;
    llm_uint_t          place;
    llm_json_value_t    v;
    llm_fold_member_t  *m;

    pos = NULL;
    visit = ++f->visits;

    while (llm_json_next(object, &pos, &name, &v) == LLM_OK) {

        /* a name that is met in two spellings would be two members */

        if (name.len && memchr(name.data, '\\', name.len)) {
            return LLM_DECLINED;
        }

        place = llm_fold_place(node->rules, &name);

        rc = llm_fold_find(f, node, place, &name, &m);
        if (rc != LLM_OK) {
            return rc;
        }

        if (m->visit == visit) {
            return LLM_DECLINED;
        }

        m->visit = visit;

        rc = llm_fold_value(f, node, m, &v);
        if (rc != LLM_OK) {
            return rc;
        }
    }

    return LLM_OK;
}


static llm_uint_t
llm_fold_place(const llm_fold_rules_t *rules, const llm_str_t *name)
{
    llm_uint_t  i;

    for (i = 0; i < rules->n; i++) {
        if (rules->rule[i].name.len == name->len
            && memcmp(rules->rule[i].name.data, name->data, name->len) == 0)
        {
            break;
        }
    }

    return i;
}


/* the member, a new one if need be */

static llm_int_t
llm_fold_find(llm_fold_t *f, llm_fold_node_t *node, llm_uint_t place,
    const llm_str_t *name, llm_fold_member_t **found)
{
    llm_uint_t               n;
    llm_fold_member_t       *m, **link;
    const llm_fold_rule_t   *rule;
    const llm_fold_rules_t  *rules;

    rules = node->rules;
    rule = (place < rules->n) ? &rules->rule[place] : NULL;

    for (link = &node->members, n = 0; *link; link = &m->next, n++) {
        m = *link;

        if (m->place > place) {
            break;
        }

        if (m->place == place
            && (rule || (m->name.len == name->len
                         && memcmp(m->name.data, name->data, name->len)
                            == 0)))
        {
            *found = m;
            return LLM_OK;
        }
    }

    if (n == LLM_FOLD_MEMBERS) {
        return LLM_DECLINED;
    }

    m = llm_fold_alloc(f, sizeof(llm_fold_member_t));
    if (m == NULL) {
        return LLM_ERROR;
    }

    m->name = (rule == NULL) ? *name : rule->as.len ? rule->as : rule->name;
    m->how = rule ? rule->how : rules->other;
    m->place = (uint16_t) place;
    m->next = *link;

    *link = m;
    *found = m;

    return LLM_OK;
}


static llm_int_t
llm_fold_value(llm_fold_t *f, llm_fold_node_t *node, llm_fold_member_t *m,
    const llm_json_value_t *v)
{
    switch (m->how) {

    case LLM_FOLD_DROP:
    case LLM_FOLD_INDEX:
        return LLM_OK;

    case LLM_FOLD_SAME:
    case LLM_FOLD_ONCE:
    case LLM_FOLD_SINGLE:
        return llm_fold_same(m, v);

    case LLM_FOLD_FIRST:

        if (m->value.raw.len == 1 && *m->value.raw.data == '0'
            && v->type != LLM_JSON_NULL)
        {
            m->value = *v;
        }

        llm_fold_take(m, v);

        return LLM_OK;

    case LLM_FOLD_LAST:

        if (v->type != LLM_JSON_NULL) {
            m->value = *v;
        }

        return LLM_OK;

    case LLM_FOLD_TEXT:

        if (v->type != LLM_JSON_STRING && v->type != LLM_JSON_NULL) {
            return LLM_DECLINED;
        }

        return llm_fold_text(f, m, v);

    case LLM_FOLD_GUESS:
        return llm_fold_guess(f, m, v);

    case LLM_FOLD_ITEMS:
        return llm_fold_items(f, m, v);

    case LLM_FOLD_OBJECT:
        return llm_fold_object(f, m, &node->rules->rule[m->place], v);

    case LLM_FOLD_LIST:
        return llm_fold_list(f, m, &node->rules->rule[m->place], v);

    default: /* LLM_FOLD_NONE */
        return llm_json_empty(v) ? LLM_OK : LLM_DECLINED;
    }
}


/* what is empty gives way, and null before all */

static void
llm_fold_take(llm_fold_member_t *m, const llm_json_value_t *v)
{
    if (llm_json_empty(&m->value)
        && (m->value.type <= LLM_JSON_NULL || !llm_json_empty(v)))
    {
        m->value = *v;
    }
}


static llm_int_t
llm_fold_same(llm_fold_member_t *m, const llm_json_value_t *v)
{
    llm_json_value_t  *kept;

    kept = &m->value;

    if (llm_json_empty(kept) || llm_json_empty(v)) {
        llm_fold_take(m, v);
        return LLM_OK;
    }

    if (m->how == LLM_FOLD_SINGLE) {
        return LLM_DECLINED;
    }

    if (kept->raw.len == v->raw.len
        && memcmp(kept->raw.data, v->raw.data, v->raw.len) == 0)
    {
        return (m->how == LLM_FOLD_ONCE && v->type == LLM_JSON_ARRAY)
               ? LLM_DECLINED : LLM_OK;
    }

    if (llm_fold_holds(kept, v)) {
        return LLM_OK;
    }

    if (llm_fold_holds(v, kept)) {
        *kept = *v;
        return LLM_OK;
    }

    return LLM_DECLINED;
}


/* 1 if an object has all members of another, as they are written there */

static llm_uint_t
llm_fold_holds(const llm_json_value_t *large, const llm_json_value_t *small)
{
    u_char            *pos;
    llm_str_t          name;
    llm_uint_t         n;
    llm_json_value_t   v, found;

    if (large->type != LLM_JSON_OBJECT || small->type != LLM_JSON_OBJECT
        || large->raw.len > LLM_FOLD_COMPARED
        || small->raw.len > large->raw.len)
    {
        return 0;
    }

    pos = NULL;

    for (n = 0; llm_json_next(&small->raw, &pos, &name, &v) == LLM_OK; n++) {

        if (n == LLM_FOLD_HELD
            || llm_json_find(&large->raw, &name, &found, 1) != LLM_OK
            || found.duplicate
            || found.raw.len != v.raw.len
            || memcmp(found.raw.data, v.raw.data, v.raw.len) != 0)
        {
            return 0;
        }
    }

    return 1;
}


static llm_int_t
llm_fold_guess(llm_fold_t *f, llm_fold_member_t *m,
    const llm_json_value_t *v)
{
    llm_fold_piece_t  *first;

    if (llm_json_empty(v)) {
        llm_fold_take(m, v);
        return LLM_OK;
    }

    if (llm_json_empty(&m->value)) {
        m->value = *v;

        return v->type == LLM_JSON_STRING ? llm_fold_text(f, m, v) : LLM_OK;
    }

    if (m->value.type != LLM_JSON_STRING || v->type != LLM_JSON_STRING) {
        return LLM_DECLINED;
    }

    if (!m->varied) {
        first = m->first;

        m->varied = (first->text.len != v->raw.len - 2
                     || memcmp(first->text.data, v->raw.data + 1,
                               first->text.len) != 0);

        f->doubts -= m->doubtful;
        m->doubtful = !m->varied;
        f->doubts += m->doubtful;
    }

    return llm_fold_text(f, m, v);
}


/* the insides are joined as they are: an escape is whole in each of them, and
 * the halves of a surrogate pair make one */

static llm_int_t
llm_fold_text(llm_fold_t *f, llm_fold_member_t *m, const llm_json_value_t *v)
{
    llm_fold_take(m, v);

    if (v->type != LLM_JSON_STRING || v->raw.len == 2) {
        return LLM_OK;
    }

    return llm_fold_piece(f, m, v->raw.data + 1, v->raw.data + v->raw.len - 1);
}


static llm_int_t
llm_fold_items(llm_fold_t *f, llm_fold_member_t *m, const llm_json_value_t *v)
{
    if (v->type != LLM_JSON_ARRAY && v->type != LLM_JSON_NULL) {
        return LLM_DECLINED;
    }

    llm_fold_take(m, v);

    if (llm_json_empty(v)) {
        return LLM_OK;
    }

    return llm_fold_piece(f, m, v->raw.data + 1, v->raw.data + v->raw.len - 1);
}


static llm_int_t
llm_fold_piece(llm_fold_t *f, llm_fold_member_t *m, u_char *start,
    u_char *end)
{
    llm_fold_piece_t  *piece;

    piece = llm_fold_alloc(f, sizeof(llm_fold_piece_t));
    if (piece == NULL) {
        return LLM_ERROR;
    }

    piece->text.data = start;
    piece->text.len = end - start;

    if (m->last) {
        m->last->next = piece;

    } else {
        m->first = piece;
    }

    m->last = piece;

    return LLM_OK;
}


static llm_int_t
llm_fold_object(llm_fold_t *f, llm_fold_member_t *m,
    const llm_fold_rule_t *rule, const llm_json_value_t *v)
{
    if (v->type == LLM_JSON_NULL) {
        llm_fold_take(m, v);
        return LLM_OK;
    }

    if (v->type != LLM_JSON_OBJECT) {
        return LLM_DECLINED;
    }

    m->value = *v;

    if (m->nodes == NULL) {
        m->nodes = llm_fold_node(f, rule->rules, 0);

        if (m->nodes == NULL) {
            return LLM_ERROR;
        }
    }

    return llm_fold_into(f, m->nodes, &v->raw);
}


static llm_int_t
llm_fold_list(llm_fold_t *f, llm_fold_member_t *m,
    const llm_fold_rule_t *rule, const llm_json_value_t *v)
{
    u_char                  *pos;
    uint64_t                 n;
    llm_int_t                rc;
    llm_json_value_t         item, index;
    static const llm_str_t   name = llm_string("index");

    if (v->type != LLM_JSON_ARRAY) {
        llm_fold_take(m, v);
        return v->type == LLM_JSON_NULL ? LLM_OK : LLM_DECLINED;
    }

    m->value = *v;
    pos = NULL;

    while (llm_json_next_object(&v->raw, &pos, &name, &index, 1, &item)
           == LLM_OK)
    {
        n = 0;

        if (item.type != LLM_JSON_OBJECT
            || ((!llm_json_empty(&index) || rule->rules->indexed)
                && llm_json_uint(&index, &n) != LLM_OK))
        {
            return LLM_DECLINED;
        }

        rc = llm_fold_indexed(f, m, rule, n);
        if (rc != LLM_OK) {
            return rc;
        }

        rc = llm_fold_into(f, m->recent, &item.raw);
        if (rc != LLM_OK) {
            return rc;
        }
    }

    return LLM_OK;
}


/* sets m->recent, to a new object if need be */

static llm_int_t
llm_fold_indexed(llm_fold_t *f, llm_fold_member_t *m,
    const llm_fold_rule_t *rule, uint64_t index)
{
    llm_fold_node_t  *node, **link;

    if (index >= rule->max) {
        return LLM_DECLINED;
    }

    if (m->recent && m->recent->index == index) {
        return LLM_OK;
    }

    for (link = &m->nodes; *link; link = &(*link)->next) {

        if ((*link)->index >= index) {
            break;
        }
    }

    if (*link && (*link)->index == index) {
        m->recent = *link;
        return LLM_OK;
    }

    node = llm_fold_node(f, rule->rules, index);
    if (node == NULL) {
        return LLM_ERROR;
    }

    node->next = *link;
    *link = node;
    m->recent = node;

    return LLM_OK;
}


llm_fold_member_t *
llm_fold_member(const llm_fold_node_t *node, llm_uint_t place)
{
    llm_fold_member_t  *m;

    for (m = node->members; m; m = m->next) {

        if (m->place == place) {
            return m;
        }
    }

    return NULL;
}


llm_int_t
llm_fold_set(llm_fold_t *f, llm_fold_node_t *node, llm_uint_t place,
    const llm_str_t *value)
{
    llm_int_t           rc;
    llm_fold_member_t  *m;

    rc = llm_fold_find(f, node ? node : f->root, place, NULL, &m);

    if (rc == LLM_OK) {
        memset(&m->value, 0, sizeof(llm_json_value_t));

        m->value.raw = *value;
        m->how = LLM_FOLD_SAME;
    }

    return rc;
}


llm_int_t
llm_fold_end(const llm_fold_t *f, llm_str_t *out)
{
    if (f->doubts) {
        return LLM_DECLINED;
    }

    return llm_render(f->mem, out, llm_fold_write, f->root);
}


static void
llm_fold_write(llm_out_t *o, const void *data)
{
    llm_uint_t                n;
    const llm_fold_node_t    *node = data;
    const llm_fold_member_t  *m;

    n = 0;
    llm_out_text(o, "{");

    for (m = node->members; m; m = m->next) {

        if (m->value.raw.data == NULL && m->how != LLM_FOLD_INDEX) {
            continue;
        }

        if (n++) {
            llm_out_text(o, ",");
        }

        llm_out_text(o, "\"");
        llm_out(o, m->name.data, m->name.len);
        llm_out_text(o, "\":");
        llm_fold_write_member(o, node, m);
    }

    llm_out_text(o, "}");
}


static void
llm_fold_write_member(llm_out_t *o, const llm_fold_node_t *node,
    const llm_fold_member_t *m)
{
    if (m->how == LLM_FOLD_INDEX) {
        llm_out_uint(o, node->index);

    } else if (m->how == LLM_FOLD_LIST && m->nodes) {
        llm_fold_write_list(o, m);

    } else if (m->how == LLM_FOLD_OBJECT && m->nodes) {
        llm_fold_write(o, m->nodes);

    } else if (m->first && m->first->next) {
        llm_fold_write_pieces(o, m);

    } else {
        llm_out(o, m->value.raw.data, m->value.raw.len);
    }
}


static void
llm_fold_write_pieces(llm_out_t *o, const llm_fold_member_t *m)
{
    const llm_fold_piece_t  *piece;

    llm_out(o, m->how == LLM_FOLD_ITEMS ? "[" : "\"", 1);

    for (piece = m->first; piece; piece = piece->next) {

        if (m->how == LLM_FOLD_ITEMS && piece != m->first) {
            llm_out_text(o, ",");
        }

        llm_out(o, piece->text.data, piece->text.len);
    }

    llm_out(o, m->how == LLM_FOLD_ITEMS ? "]" : "\"", 1);
}


static void
llm_fold_write_list(llm_out_t *o, const llm_fold_member_t *m)
{
    const llm_fold_node_t  *node;

    llm_out_text(o, "[");

    for (node = m->nodes; node; node = node->next) {

        if (node != m->nodes) {
            llm_out_text(o, ",");
        }

        llm_fold_write(o, node);
    }

    llm_out_text(o, "]");
}
