/* Post-processors as templates: which ids stand around the sequences, and the
 * type id of each part. Bert and Roberta are written out as templates too. */
#include "text/tokenizer_parts.h"

static TextTemplateItem *add_item(TextTemplate *template, int sequence, int32_t type_id) {
    template->items =
        base_realloc(template->items, (template->count + 1) * sizeof *template->items);
    TextTemplateItem *item = &template->items[template->count++];
    *item = (TextTemplateItem){.sequence = (int8_t)sequence, .type_id = type_id};
    return item;
}

static void add_ids(TextTemplate *template, const int32_t *ids, size_t count, int32_t type_id) {
    TextTemplateItem *item = add_item(template, -1, type_id);
    item->ids = base_calloc(count + 1, sizeof *item->ids);
    memcpy(item->ids, ids, count * sizeof *ids);
    item->count = count;
    template->special += count;
}

/* ---- TemplateProcessing ------------------------------------------------- */

static bool read_special(const json_t *specials, const char *name, TextTemplate *template,
                         int32_t type_id, Error *err) {
    const json_t *ids = json_object_get(json_object_get(specials, name), "ids");
    size_t count = json_array_size(ids);
    if (!json_is_array(ids))
        return base_fail(err, ERROR_INPUT,
                         "post_processor TemplateProcessing: the template names \"%.60s\", which "
                         "\"special_tokens\" lacks",
                         name);
    int32_t *values = base_calloc(count + 1, sizeof *values);
    bool ok = true;
    for (size_t i = 0; i < count && ok; i++) {
        const json_t *id = json_array_get(ids, i);
        ok = json_is_integer(id) && json_integer_value(id) >= 0 &&
             json_integer_value(id) < TEXT_MAX_IDS;
        values[i] = ok ? (int32_t)json_integer_value(id) : 0;
    }
    if (ok) add_ids(template, values, count, type_id);
    free(values);
    return ok ||
           base_fail(err, ERROR_INPUT,
                     "post_processor TemplateProcessing: bad id in special token \"%.60s\"", name);
}

static bool read_template(const json_t *list, const json_t *specials, TextTemplate *template,
                          Error *err) {
    const char *where = "post_processor TemplateProcessing";
    if (!json_is_array(list))
        return base_fail(err, ERROR_INPUT, "%s: \"single\" and \"pair\" must be lists", where);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i);
        const json_t *special = json_object_get(entry, "SpecialToken");
        const json_t *sequence = json_object_get(entry, "Sequence");
        const json_t *body = special ? special : sequence;
        const char *id = json_string_value(json_object_get(body, "id"));
        json_int_t type_id = json_integer_value(json_object_get(body, "type_id"));
        if (!id || type_id < 0 || type_id > INT32_MAX)
            return base_fail(err, ERROR_INPUT,
                             "%s: item %zu is neither a SpecialToken nor a Sequence", where, i);
        if (special) {
            if (!read_special(specials, id, template, (int32_t)type_id, err)) return false;
        } else if (strcmp(id, "A") == 0 || strcmp(id, "B") == 0) {
            add_item(template, id[0] - 'A', (int32_t)type_id);
        } else {
            return base_fail(err, ERROR_INPUT, "%s: a Sequence must be A or B", where);
        }
    }
    return true;
}

static bool load_template(const json_t *json, TextPost *post, Error *err) {
    const json_t *specials = json_object_get(json, "special_tokens");
    return read_template(json_object_get(json, "single"), specials, &post->single, err) &&
           read_template(json_object_get(json, "pair"), specials, &post->pair, err);
}

/* ---- Bert, Roberta ------------------------------------------------------ */

/* ["[SEP]", 102] */
static bool read_named_id(const json_t *json, const char *key, const char *where, int32_t *id,
                          Error *err) {
    const json_t *pair = json_object_get(json, key), *value = json_array_get(pair, 1);
    if (!json_is_string(json_array_get(pair, 0)) || !json_is_integer(value) ||
        json_integer_value(value) < 0 || json_integer_value(value) >= TEXT_MAX_IDS)
        return base_fail(err, ERROR_INPUT, "%s: \"%s\" must be [text, id]", where, key);
    *id = (int32_t)json_integer_value(value);
    return true;
}

/* A letter is a sequence, c is cls, s is sep; the digit after it is its type. */
static void write_template(TextTemplate *template, const char *items, int32_t cls, int32_t sep) {
    for (; *items; items += 2) {
        int32_t type_id = items[1] - '0';
        if (items[0] == 'A' || items[0] == 'B')
            add_item(template, items[0] - 'A', type_id);
        else
            add_ids(template, items[0] == 'c' ? &cls : &sep, 1, type_id);
    }
}

static bool load_bert_like(const json_t *json, const char *where, const char *pair, TextPost *post,
                           Error *err) {
    int32_t cls, sep;
    if (!read_named_id(json, "cls", where, &cls, err) ||
        !read_named_id(json, "sep", where, &sep, err))
        return false;
    write_template(&post->single, "c0A0s0", cls, sep);
    write_template(&post->pair, pair, cls, sep);
    return true;
}

static bool load_bert(const json_t *json, TextPost *post, Error *err) {
    return load_bert_like(json, "post_processor BertProcessing", "c0A0s0B1s1", post, err);
}

static bool load_roberta(const json_t *json, TextPost *post, Error *err) {
    return load_bert_like(json, "post_processor RobertaProcessing", "c0A0s0s0B0s0", post, err);
}

/* ---- loading ------------------------------------------------------------ */

static bool load_part(const json_t *json, const char *type, void *chain, Error *err) {
    static const struct {
        const char *type;
        bool (*load)(const json_t *, TextPost *, Error *);
    } kinds[] = {
        {"TemplateProcessing", load_template},
        {"BertProcessing", load_bert},
        {"RobertaProcessing", load_roberta},
        {"ByteLevel", NULL}, /* changes offsets only */
    };
    TextPost *post = chain;
    size_t k = 0;
    while (k < BASE_COUNT(kinds) && strcmp(type, kinds[k].type) != 0) k++;
    if (k == BASE_COUNT(kinds)) return text_chain_unknown("post_processor", type, err);
    if (kinds[k].load && post->single.count)
        return base_fail(err, ERROR_UNSUPPORTED,
                         "post_processor: two templates one after another are not supported");
    return !kinds[k].load || kinds[k].load(json, post, err);
}

bool text_post_load(const json_t *json, TextPost *post, Error *err) {
    static const TextChainLoader loader = {"post_processor", "processors", load_part};
    if (!text_chain_load(json, &loader, post, err)) return false;
    if (!post->single.count) {
        write_template(&post->single, "A0", 0, 0);
        write_template(&post->pair, "A0B1", 0, 0);
    }
    return true;
}

static void template_free(TextTemplate *template) {
    for (size_t i = 0; i < template->count; i++) free(template->items[i].ids);
    free(template->items);
}

void text_post_free(TextPost *post) {
    template_free(&post->single);
    template_free(&post->pair);
    *post = (TextPost){0};
}

void text_post_wrap(TextPost *post, int32_t before, int32_t after) {
    TextTemplate *const templates[2] = {&post->single, &post->pair};
    text_post_free(post);
    for (int pair = 0; pair < 2; pair++)
        for (int sequence = 0; sequence <= pair; sequence++) {
            if (before >= 0) add_ids(templates[pair], &before, 1, sequence);
            add_item(templates[pair], sequence, sequence);
            if (after >= 0) add_ids(templates[pair], &after, 1, sequence);
        }
}
