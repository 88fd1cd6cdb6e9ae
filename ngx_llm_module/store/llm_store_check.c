
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Is a data file one that LMDB can work with?  LMDB trusts what it reads: a
 * page number beyond the file or a length beyond the page would end the
 * process.  So before a file is used its trees are walked as they lie on the
 * disk: every page has its own number and kind, is met once, and is filled by
 * its nodes without a gap; keys are in order; what is free is not in use.
 * Entries have sums of their own.
 *
 * The file is read, not mapped, so that it may be cut at any time.  The
 * layout is that of LMDB's data version 1 on machines of 64 bits.
 */


#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "llm_store_int.h"


#define LLM_LMDB_MAGIC     0xbeefc0de
#define LLM_LMDB_VERSION   1
#define LLM_LMDB_MIN       512         /* of a page's size */
#define LLM_LMDB_MAX       32768
#define LLM_LMDB_DEPTH     32
#define LLM_LMDB_KEY       511
#define LLM_LMDB_NONE      UINT64_MAX
#define LLM_LMDB_MAP       (1ULL << 46)

#define LLM_LMDB_BRANCH    0x01        /* pages */
#define LLM_LMDB_LEAF      0x02
#define LLM_LMDB_OVERFLOW  0x04
#define LLM_LMDB_META      0x08

#define LLM_LMDB_BIG       0x01        /* nodes */
#define LLM_LMDB_SUB       0x02

#define LLM_LMDB_INTEGER   0x08        /* trees */
#define LLM_LMDB_NOSUBDIR  0x4000      /* how it was created: no matter */


typedef struct {
    uint64_t               pgno;
    uint16_t               pad;
    uint16_t               flags;
    uint16_t               lower;
    uint16_t               upper;
} llm_lmdb_page_t;

typedef struct {
    uint16_t               n[3];       /* size and flags, or a page */
    uint16_t               ksize;
} llm_lmdb_node_t;

typedef struct {
    uint32_t               pad;
    uint16_t               flags;
    uint16_t               depth;
    uint64_t               branch;     /* pages */
    uint64_t               leaf;
    uint64_t               overflow;
    uint64_t               entries;
    uint64_t               root;
} llm_lmdb_tree_t;

typedef struct {
    uint32_t               magic;
    uint32_t               version;
    uint64_t               address;
    uint64_t               mapsize;
    llm_lmdb_tree_t        free;       /* its pad is the page's size */
    llm_lmdb_tree_t        main;
    uint64_t               last;
    uint64_t               txnid;
} llm_lmdb_meta_t;


typedef enum {
    LLM_TREE_FREE = 0,
    LLM_TREE_MAIN,
    LLM_TREE_META,
    LLM_TREE_ANSWERS
} llm_tree_e;


/* a key; data NULL: none */

typedef struct {
    const u_char          *data;
    size_t                 len;
} llm_check_key_t;


typedef struct {
    int                    fd;
    uint32_t               psize;
    uint32_t               depth;      /* of the tree being walked */
    uint64_t               last;
    uint64_t               txnid;
    uint64_t               size;       /* of the file, in pages */
    u_char                *used;       /* a bit a page */
    u_char                *pages;      /* one a level */
    u_char                *cover;      /* a byte for two of a page */
    uint64_t              *ids;        /* a list of free pages */
    size_t                 ids_size;
    llm_tree_e             tree;
    llm_lmdb_tree_t        sum;        /* as it was found */
    llm_lmdb_tree_t        subs[2];    /* meta, answers */
    unsigned               seen;       /* of them, bits */
    const char            *why;
} llm_check_t;


static llm_int_t llm_check_meta(int fd, uint64_t offset, llm_uint_t i,
    llm_lmdb_meta_t *m, const char **why);
static llm_int_t llm_check_newest(int fd, uint64_t txnid,
    llm_lmdb_meta_t *meta, const char **why);
static llm_int_t llm_check_all(llm_check_t *c, const llm_lmdb_meta_t *m);
static llm_int_t llm_check_tree(llm_check_t *c, llm_tree_e tree,
    const llm_lmdb_tree_t *t);
static llm_int_t llm_check_page(llm_check_t *c, uint64_t pgno,
    llm_uint_t level, const llm_check_key_t *lo, const llm_check_key_t *hi);
static llm_int_t llm_check_nodes(llm_check_t *c, const u_char *page,
    llm_uint_t n);
static llm_int_t llm_check_keys(llm_check_t *c, const u_char *page,
    llm_uint_t n, const llm_check_key_t *lo, const llm_check_key_t *hi);
static llm_int_t llm_check_branch(llm_check_t *c, const u_char *page,
    llm_uint_t n, llm_uint_t level, const llm_check_key_t *lo,
    const llm_check_key_t *hi);
static llm_int_t llm_check_leaf(llm_check_t *c, const u_char *page,
    llm_uint_t n);
static llm_int_t llm_check_overflow(llm_check_t *c, const u_char *node,
    uint64_t *pgno);
static llm_int_t llm_check_sub(llm_check_t *c, const u_char *node);
static llm_int_t llm_check_ids(llm_check_t *c, const u_char *node,
    uint64_t pgno);
static llm_int_t llm_check_take(llm_check_t *c, uint64_t pgno, uint64_t n);
static llm_int_t llm_check_read(llm_check_t *c, uint64_t pgno, void *dst,
    size_t len);
static int llm_check_order(llm_check_t *c, const llm_check_key_t *a,
    const llm_check_key_t *b);


static llm_int_t
llm_check_fail(llm_check_t *c, const char *why)
{
    c->why = why;

    return LLM_ERROR;
}


static inline const u_char *
llm_check_node(const u_char *page, llm_uint_t i, llm_lmdb_node_t *node)
{
    uint16_t  offset;

    memcpy(&offset, page + sizeof(llm_lmdb_page_t) + i * 2, 2);
    memcpy(node, page + offset, sizeof(llm_lmdb_node_t));

    return page + offset;
}


static inline uint32_t
llm_check_size(const llm_lmdb_node_t *node)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return node->n[0] | (uint32_t) node->n[1] << 16;
#else
    return node->n[1] | (uint32_t) node->n[0] << 16;
#endif
}


llm_int_t
llm_store_check_head(int fd, llm_store_file_t *f)
{
    uint64_t         psize;
    struct stat      st;
    llm_lmdb_meta_t  m[2], *p;

    memset(f, 0, sizeof(llm_store_file_t));

    if (llm_check_meta(fd, 0, 0, &m[0], &f->why) != LLM_OK) {
        return LLM_ERROR;
    }

    psize = m[0].free.pad;

    if (llm_check_meta(fd, psize, 1, &m[1], &f->why) != LLM_OK) {
        return LLM_ERROR;
    }

    if (m[1].free.pad != psize) {
        f->why = "its two first pages differ";
        return LLM_ERROR;
    }

    p = &m[m[1].txnid > m[0].txnid];

    if (fstat(fd, &st) != 0 || (uint64_t) st.st_size < 2 * psize) {
        f->why = "it is too short";
        return LLM_ERROR;
    }

    f->txnid = p->txnid;
    f->last = p->last;
    f->mapsize = p->mapsize;
    f->psize = psize;

    return LLM_OK;
}


static llm_int_t
llm_check_meta(int fd, uint64_t offset, llm_uint_t i, llm_lmdb_meta_t *m,
    const char **why)
{
    u_char           buf[sizeof(llm_lmdb_page_t) + sizeof(llm_lmdb_meta_t)];
    ssize_t          n;
    uint64_t         psize;
    llm_lmdb_page_t  page;

    n = pread(fd, buf, sizeof(buf), offset);

    if (n != (ssize_t) sizeof(buf)) {
        *why = "it is too short";
        return LLM_ERROR;
    }

    memcpy(&page, buf, sizeof(llm_lmdb_page_t));
    memcpy(m, buf + sizeof(llm_lmdb_page_t), sizeof(llm_lmdb_meta_t));

    psize = m->free.pad;

    if (page.flags != LLM_LMDB_META || page.pgno != i
        || m->magic != LLM_LMDB_MAGIC || m->version != LLM_LMDB_VERSION)
    {
        *why = "it is no file of LMDB";
        return LLM_ERROR;
    }

    if (psize < LLM_LMDB_MIN || psize > LLM_LMDB_MAX
        || (psize & (psize - 1)) != 0
        || m->mapsize > LLM_LMDB_MAP
        || m->last < 1 || m->last >= LLM_LMDB_MAP / psize
        || (m->free.flags & ~LLM_LMDB_NOSUBDIR) != LLM_LMDB_INTEGER
        || m->main.flags != 0
        || m->txnid >= UINT64_MAX / 2
        || (m->txnid && (m->txnid & 1) != i))
    {
        *why = "its first pages are damaged";
        return LLM_ERROR;
    }

    return LLM_OK;
}


llm_int_t
llm_store_check(int fd, uint64_t txnid, llm_store_file_t *f)
{
    llm_int_t        rc;
    struct stat      st;
    llm_check_t      c;
    llm_lmdb_meta_t  m;

    if (llm_store_check_head(fd, f) != LLM_OK
        || llm_check_newest(fd, txnid, &m, &f->why) != LLM_OK)
    {
        return LLM_ERROR;
    }

    if (fstat(fd, &st) != 0) {
        f->why = "it is gone";
        return LLM_ERROR;
    }

    memset(&c, 0, sizeof(llm_check_t));

    c.fd = fd;
    c.psize = f->psize;
    c.last = m.last;
    c.txnid = txnid;
    c.size = (uint64_t) st.st_size / f->psize;

    c.used = calloc(1, c.last / 8 + 1);
    c.pages = malloc((size_t) LLM_LMDB_DEPTH * c.psize);
    c.cover = malloc(c.psize / 2);

    rc = (c.used && c.pages && c.cover) ? llm_check_all(&c, &m)
                                        : LLM_DECLINED;

    free(c.ids);
    free(c.used);
    free(c.pages);
    free(c.cover);

    if (rc == LLM_ERROR) {
        f->why = c.why;
    }

    return rc;
}


/* it is written while it is read only if it is not of that snapshot */

static llm_int_t
llm_check_newest(int fd, uint64_t txnid, llm_lmdb_meta_t *meta,
    const char **why)
{
    uint64_t         psize;
    llm_uint_t       i, try;
    llm_lmdb_meta_t  m;

    if (llm_check_meta(fd, 0, 0, &m, why) != LLM_OK) {
        return LLM_ERROR;
    }

    psize = m.free.pad;
    i = txnid & 1;

    for (try = 0; try < 3; try++) {
        if (llm_check_meta(fd, i * psize, i, meta, why) != LLM_OK
            || llm_check_meta(fd, i * psize, i, &m, why) != LLM_OK)
        {
            return LLM_ERROR;
        }

        if (meta->txnid == txnid
            && memcmp(meta, &m, sizeof(llm_lmdb_meta_t)) == 0)
        {
            return LLM_OK;
        }
    }

    *why = "its newest state is not there";

    return LLM_ERROR;
}


static llm_int_t
llm_check_all(llm_check_t *c, const llm_lmdb_meta_t *m)
{
    c->used[0] = 0x03;

    if (llm_check_tree(c, LLM_TREE_MAIN, &m->main) != LLM_OK) {
        return LLM_ERROR;
    }

    if (c->seen != 0x03) {
        return llm_check_fail(c, "it is not a cache");
    }

    if (llm_check_tree(c, LLM_TREE_META, &c->subs[0]) != LLM_OK
        || llm_check_tree(c, LLM_TREE_ANSWERS, &c->subs[1]) != LLM_OK)
    {
        return LLM_ERROR;
    }

    return llm_check_tree(c, LLM_TREE_FREE, &m->free);
}


static llm_int_t
llm_check_tree(llm_check_t *c, llm_tree_e tree, const llm_lmdb_tree_t *t)
{
    llm_check_key_t  none;

    c->tree = tree;
    c->depth = t->depth;
    memset(&c->sum, 0, sizeof(llm_lmdb_tree_t));
    memset(&none, 0, sizeof(llm_check_key_t));

    if (t->root == LLM_LMDB_NONE) {
        if (t->depth || t->entries || t->branch || t->leaf || t->overflow) {
            return llm_check_fail(c, "an empty tree has pages");
        }

        return LLM_OK;
    }

    if (t->depth == 0 || t->depth > LLM_LMDB_DEPTH - 2) {
        return llm_check_fail(c, "a tree is too deep");
    }

    if (llm_check_page(c, t->root, 1, &none, &none) != LLM_OK) {
        return LLM_ERROR;
    }

    if (c->sum.branch != t->branch || c->sum.leaf != t->leaf
        || c->sum.overflow != t->overflow || c->sum.entries != t->entries)
    {
        return llm_check_fail(c, "a tree's counts are wrong");
    }

    return LLM_OK;
}


/* level counts from 1; the leaves are all at the tree's depth */

static llm_int_t
llm_check_page(llm_check_t *c, uint64_t pgno, llm_uint_t level,
    const llm_check_key_t *lo, const llm_check_key_t *hi)
{
    u_char           *page;
    llm_uint_t        n;
    llm_lmdb_page_t   p;

    page = c->pages + (level - 1) * c->psize;

    if (llm_check_take(c, pgno, 1) != LLM_OK
        || llm_check_read(c, pgno, page, c->psize) != LLM_OK)
    {
        return LLM_ERROR;
    }

    memcpy(&p, page, sizeof(llm_lmdb_page_t));

    if (p.pgno != pgno
        || p.flags != (level == c->depth ? LLM_LMDB_LEAF : LLM_LMDB_BRANCH)
        || p.lower < sizeof(llm_lmdb_page_t) || p.lower % 2
        || p.upper < p.lower || p.upper % 2 || p.upper > c->psize)
    {
        return llm_check_fail(c, "a page's head is damaged");
    }

    n = (p.lower - sizeof(llm_lmdb_page_t)) / 2;

    if (n == 0
        || (n == 1 && level != c->depth && c->tree != LLM_TREE_FREE))
    {
        return llm_check_fail(c, "a page is empty");
    }

    if (llm_check_nodes(c, page, n) != LLM_OK
        || llm_check_keys(c, page, n, lo, hi) != LLM_OK)
    {
        return LLM_ERROR;
    }

    if (level == c->depth) {
        c->sum.leaf++;
        c->sum.entries += n;

        return llm_check_leaf(c, page, n);
    }

    c->sum.branch++;

    return llm_check_branch(c, page, n, level, lo, hi);
}


/* nodes lie from upper to the end, in any order, none over another */

static llm_int_t
llm_check_nodes(llm_check_t *c, const u_char *page, llm_uint_t n)
{
    size_t           len, nodemax, total;
    uint16_t         offset;
    llm_uint_t       i, leaf;
    llm_lmdb_node_t  node;
    llm_lmdb_page_t  p;

    memcpy(&p, page, sizeof(llm_lmdb_page_t));
    memset(c->cover, 0, c->psize / 2);

    leaf = (p.flags == LLM_LMDB_LEAF);
    nodemax = ((((c->psize - sizeof(llm_lmdb_page_t)) / 2)) & ~1UL) - 2;
    total = 0;

    for (i = 0; i < n; i++) {
        memcpy(&offset, page + sizeof(llm_lmdb_page_t) + i * 2, 2);

        if (offset < p.upper || offset % 2
            || offset + sizeof(llm_lmdb_node_t) > c->psize)
        {
            return llm_check_fail(c, "a node is not in its page");
        }

        (void) llm_check_node(page, i, &node);

        len = sizeof(llm_lmdb_node_t) + node.ksize;

        if (leaf) {
            len += (node.n[2] & LLM_LMDB_BIG) ? sizeof(uint64_t)
                                              : llm_check_size(&node);
        }

        if (node.ksize > LLM_LMDB_KEY || len > nodemax
            || offset + len > c->psize)
        {
            return llm_check_fail(c, "a node is too long");
        }

        len = (len + 1) & ~1UL;
        total += len;

        if (total > c->psize
            || memchr(c->cover + offset / 2, 1, len / 2) != NULL)
        {
            return llm_check_fail(c, "nodes overlap");
        }

        memset(c->cover + offset / 2, 1, len / 2);
    }

    if (total != (size_t) c->psize - p.upper) {
        return llm_check_fail(c, "a page has gaps");
    }

    return LLM_OK;
}


static llm_int_t
llm_check_keys(llm_check_t *c, const u_char *page, llm_uint_t n,
    const llm_check_key_t *lo, const llm_check_key_t *hi)
{
    llm_uint_t        i;
    llm_lmdb_node_t   node;
    llm_lmdb_page_t   p;
    llm_check_key_t   key, before;

    memcpy(&p, page, sizeof(llm_lmdb_page_t));
    before = *lo;

    for (i = 0; i < n; i++) {
        key.data = llm_check_node(page, i, &node) + sizeof(llm_lmdb_node_t);
        key.len = node.ksize;

        /* the first key of a branch stands for all that are smaller */

        if (i == 0 && p.flags == LLM_LMDB_BRANCH) {
            continue;
        }

        if ((c->tree == LLM_TREE_ANSWERS && key.len != LLM_KEY_LEN)
            || (c->tree == LLM_TREE_FREE && key.len != sizeof(uint64_t))
            || key.len == 0)
        {
            return llm_check_fail(c, "a key's length is wrong");
        }

        if ((before.data
             && llm_check_order(c, &before, &key)
                >= ((i == 0 || before.data == lo->data) ? 1 : 0))
            || (hi->data && llm_check_order(c, &key, hi) >= 0))
        {
            return llm_check_fail(c, "keys are out of order");
        }

        before = key;
    }

    return LLM_OK;
}


static llm_int_t
llm_check_branch(llm_check_t *c, const u_char *page, llm_uint_t n,
    llm_uint_t level, const llm_check_key_t *lo, const llm_check_key_t *hi)
{
    uint64_t         pgno;
    llm_uint_t       i;
    const u_char    *p;
    llm_lmdb_node_t  node, next;
    llm_check_key_t  from, to;

    for (i = 0; i < n; i++) {
        p = llm_check_node(page, i, &node);
        pgno = llm_check_size(&node) | (uint64_t) node.n[2] << 32;

        from = *lo;
        to = *hi;

        if (i) {
            from.data = p + sizeof(llm_lmdb_node_t);
            from.len = node.ksize;
        }

        if (i + 1 < n) {
            to.data = llm_check_node(page, i + 1, &next)
                      + sizeof(llm_lmdb_node_t);
            to.len = next.ksize;
        }

        if (llm_check_page(c, pgno, level + 1, &from, &to) != LLM_OK) {
            return LLM_ERROR;
        }
    }

    return LLM_OK;
}


static llm_int_t
llm_check_leaf(llm_check_t *c, const u_char *page, llm_uint_t n)
{
    uint64_t         pgno;
    llm_uint_t       i;
    const u_char    *p;
    llm_lmdb_node_t  node;

    for (i = 0; i < n; i++) {
        p = llm_check_node(page, i, &node);
        pgno = 0;

        if (c->tree == LLM_TREE_MAIN) {
            if (node.n[2] != LLM_LMDB_SUB) {
                return llm_check_fail(c, "it is not a cache");
            }

            if (llm_check_sub(c, p) != LLM_OK) {
                return LLM_ERROR;
            }

            continue;
        }

        if (node.n[2] & ~LLM_LMDB_BIG) {
            return llm_check_fail(c, "a node's kind is wrong");
        }

        if (node.n[2] && llm_check_overflow(c, p, &pgno) != LLM_OK) {
            return LLM_ERROR;
        }

        if (c->tree == LLM_TREE_FREE
            && llm_check_ids(c, p, pgno) != LLM_OK)
        {
            return LLM_ERROR;
        }
    }

    return LLM_OK;
}


static llm_int_t
llm_check_overflow(llm_check_t *c, const u_char *p, uint64_t *pgno)
{
    uint32_t         pages;
    uint64_t         need;
    llm_lmdb_node_t  node;
    llm_lmdb_page_t  page;

    memcpy(&node, p, sizeof(llm_lmdb_node_t));
    memcpy(pgno, p + sizeof(llm_lmdb_node_t) + node.ksize, sizeof(uint64_t));

    if (*pgno > c->last
        || llm_check_read(c, *pgno, &page, sizeof(llm_lmdb_page_t))
           != LLM_OK)
    {
        return llm_check_fail(c, "a value is not in the file");
    }

    memcpy(&pages, &page.lower, sizeof(uint32_t));

    need = (sizeof(llm_lmdb_page_t) - 1 + (uint64_t) llm_check_size(&node))
           / c->psize + 1;

    if (page.pgno != *pgno || page.flags != LLM_LMDB_OVERFLOW
        || pages < need)
    {
        return llm_check_fail(c, "a value's pages are damaged");
    }

    c->sum.overflow += pages;

    return llm_check_take(c, *pgno, pages);
}


static llm_int_t
llm_check_sub(llm_check_t *c, const u_char *p)
{
    llm_uint_t       i;
    const u_char    *key;
    llm_lmdb_node_t  node;

    memcpy(&node, p, sizeof(llm_lmdb_node_t));
    key = p + sizeof(llm_lmdb_node_t);

    if (node.ksize == 4 && memcmp(key, "meta", 4) == 0) {
        i = 0;

    } else if (node.ksize == 7 && memcmp(key, "answers", 7) == 0) {
        i = 1;

    } else {
        return llm_check_fail(c, "it is not a cache");
    }

    if (llm_check_size(&node) != sizeof(llm_lmdb_tree_t)) {
        return llm_check_fail(c, "a tree's head is damaged");
    }

    memcpy(&c->subs[i], key + node.ksize, sizeof(llm_lmdb_tree_t));

    if (c->subs[i].flags != 0) {
        return llm_check_fail(c, "a tree's head is damaged");
    }

    c->seen |= 1 << i;

    return LLM_OK;
}


/* a list of free pages: their number, then they, descending */

static llm_int_t
llm_check_ids(llm_check_t *c, const u_char *p, uint64_t pgno)
{
    size_t           len, i, n;
    uint64_t        *ids, txnid;
    llm_lmdb_node_t  node;

    memcpy(&node, p, sizeof(llm_lmdb_node_t));
    memcpy(&txnid, p + sizeof(llm_lmdb_node_t), sizeof(uint64_t));

    len = llm_check_size(&node);

    if (txnid == 0 || txnid > c->txnid || len < sizeof(uint64_t)
        || len % sizeof(uint64_t) || len / sizeof(uint64_t) > c->last + 2)
    {
        return llm_check_fail(c, "the list of free pages is damaged");
    }

    if (len > c->ids_size) {
        ids = realloc(c->ids, len);
        if (ids == NULL) {
            return llm_check_fail(c, "the list of free pages is too long");
        }

        c->ids = ids;
        c->ids_size = len;
    }

    ids = c->ids;

    if (pgno == 0) {
        memcpy(ids, p + sizeof(llm_lmdb_node_t) + node.ksize, len);

    } else if (pread(c->fd, ids, len,
                     pgno * c->psize + sizeof(llm_lmdb_page_t))
               != (ssize_t) len)
    {
        return llm_check_fail(c, "the list of free pages is not in the file");
    }

    n = ids[0];

    if (n >= len / sizeof(uint64_t)) {
        return llm_check_fail(c, "the list of free pages is too short");
    }

    for (i = 1; i <= n; i++) {
        if (i > 1 && ids[i] >= ids[i - 1]) {
            return llm_check_fail(c, "the list of free pages is not sorted");
        }

        if (ids[i] < 2 || ids[i] > c->last
            || (c->used[ids[i] / 8] & 1 << ids[i] % 8))
        {
            return llm_check_fail(c, "a page in use is free");
        }

        c->used[ids[i] / 8] |= 1 << ids[i] % 8;
    }

    return LLM_OK;
}


static llm_int_t
llm_check_take(llm_check_t *c, uint64_t pgno, uint64_t n)
{
    uint64_t  i;

    if (pgno < 2 || pgno > c->last || n > c->last - pgno + 1
        || pgno + n > c->size)
    {
        return llm_check_fail(c, "a page is not in the file");
    }

    for (i = pgno; i < pgno + n; i++) {
        if (c->used[i / 8] & 1 << i % 8) {
            return llm_check_fail(c, "a page is used twice");
        }

        c->used[i / 8] |= 1 << i % 8;
    }

    return LLM_OK;
}


static llm_int_t
llm_check_read(llm_check_t *c, uint64_t pgno, void *dst, size_t len)
{
    if (pread(c->fd, dst, len, pgno * c->psize) != (ssize_t) len) {
        return llm_check_fail(c, "a page is not in the file");
    }

    return LLM_OK;
}


static int
llm_check_order(llm_check_t *c, const llm_check_key_t *a,
    const llm_check_key_t *b)
{
    int       rc;
    uint64_t  x, y;

    if (c->tree == LLM_TREE_FREE) {
        if (a->len != sizeof(uint64_t) || b->len != sizeof(uint64_t)) {
            return 1;
        }

        memcpy(&x, a->data, sizeof(uint64_t));
        memcpy(&y, b->data, sizeof(uint64_t));

        return (x > y) - (x < y);
    }

    rc = memcmp(a->data, b->data, a->len < b->len ? a->len : b->len);

    return rc ? rc : (a->len > b->len) - (a->len < b->len);
}
