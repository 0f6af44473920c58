/* Search results and answers as JSON, for --json. Keys are the names of rag.h. */
#include "rag/rag.h"

#include <string.h>

static void set_text(json_t *object, const char *key, const char *text) {
    json_object_set_new(object, key, json_string(text ? text : ""));
}

/* null where the number was not computed */
static json_t *cosine_or_null(double cosine) {
    return cosine > -2 ? json_real(cosine) : json_null();
}

static json_t *hit_json(const RagHit *hit) {
    json_t *object = json_object();
    json_object_set_new(object, "chunk", json_integer(hit->chunk));
    set_text(object, "document", hit->document);
    set_text(object, "title", hit->title);
    set_text(object, "heading", hit->heading);
    bool code = strcmp(hit->format, "code") == 0;
    set_text(object, "format", hit->format);
    json_object_set_new(object, code ? "line" : "page",
                        hit->page ? json_integer(hit->page) : json_null());
    json_object_set_new(object, "start", json_integer((json_int_t)hit->start));
    json_object_set_new(object, "end", json_integer((json_int_t)hit->end));
    if (hit->n_chunks > 1)
        json_object_set_new(object, "chunks", json_integer((json_int_t)hit->n_chunks));
    json_object_set_new(object, "score", json_real(hit->score));
    json_object_set_new(object, "cosine", cosine_or_null(hit->cosine));
    json_object_set_new(object, "bm25", json_real(hit->bm25));
    if (hit->reranked) json_object_set_new(object, "rerank", json_real(hit->rerank_score));
    set_text(object, "snippet", hit->snippet);
    set_text(object, "text", hit->text);
    return object;
}

json_t *rag_search_json(const RagSearch *result) {
    json_t *object = json_object(), *hits = json_array(), *seconds = json_object();
    set_text(object, "query", result->query);
    if (*result->reworded) set_text(object, "reworded", result->reworded);
    json_object_set_new(object, "relevant", json_boolean(result->relevant));
    json_object_set_new(object, "best_cosine", cosine_or_null(result->best_cosine));
    json_object_set_new(object, "best_overlap", json_real(result->best_overlap));
    json_object_set_new(object, "threshold", json_real(result->threshold));
    json_object_set_new(object, "n_chunks", json_integer((json_int_t)result->n_chunks));
    json_object_set_new(object, "n_repeated", json_integer((json_int_t)result->n_repeated));
    for (size_t i = 0; i < result->n_hits; i++)
        json_array_append_new(hits, hit_json(&result->hits[i]));
    json_object_set_new(object, "hits", hits);
    json_object_set_new(seconds, "embed", json_real(result->embed_seconds));
    json_object_set_new(seconds, "dense", json_real(result->dense_seconds));
    json_object_set_new(seconds, "lexical", json_real(result->lexical_seconds));
    json_object_set_new(seconds, "rerank", json_real(result->rerank_seconds));
    json_object_set_new(seconds, "total", json_real(result->total_seconds));
    json_object_set_new(object, "seconds", seconds);
    return object;
}

static json_t *sentence_json(const RagAnswer *answer, const RagSentence *sentence) {
    static const char *const names[] = {
        [RAG_UNSUPPORTED] = "unsupported", [RAG_WEAK] = "weak", [RAG_SUPPORTED] = "supported"};
    json_t *object = json_object();
    json_object_set_new(
        object, "text",
        json_stringn(answer->text + sentence->start, sentence->end - sentence->start));
    json_object_set_new(object, "source", json_integer((json_int_t)sentence->source));
    set_text(object, "support", names[sentence->support]);
    json_object_set_new(object, "overlap", json_real(sentence->overlap));
    json_object_set_new(object, "cosine", cosine_or_null(sentence->cosine));
    return object;
}

json_t *rag_answer_json(const RagSearch *search, const RagAnswer *answer) {
    static const char *const kinds[] = {[RAG_ANSWER_GENERATED] = "generated",
                                        [RAG_ANSWER_EXTRACTIVE] = "extractive",
                                        [RAG_ANSWER_REFUSED] = "refused"};
    json_t *object = json_object(), *sentences = json_array(), *sources = json_array(),
           *generation = json_object();
    set_text(object, "question", search->query);
    set_text(object, "answer", answer->text);
    set_text(object, "kind", kinds[answer->kind]);
    set_text(object, "draft", answer->draft);
    for (size_t i = 0; i < answer->n_sentences; i++)
        json_array_append_new(sentences, sentence_json(answer, &answer->sentences[i]));
    json_object_set_new(object, "sentences", sentences);
    for (size_t i = 0; i < answer->n_sources; i++) {
        json_t *source = hit_json(answer->sources[i].hit);
        json_object_set_new(source, "number", json_integer((json_int_t)answer->sources[i].number));
        json_object_set_new(source, "cited", json_boolean(answer->sources[i].cited));
        set_text(source, "quote", answer->sources[i].quote);
        json_array_append_new(sources, source);
    }
    json_object_set_new(object, "sources", sources);
    json_object_set_new(object, "invalid_citations",
                        json_integer((json_int_t)answer->invalid_citations));
    json_object_set_new(object, "unsupported_sentences",
                        json_integer((json_int_t)answer->n_unsupported));
    json_object_set_new(generation, "prompt_tokens",
                        json_integer((json_int_t)answer->generation.prompt_tokens));
    json_object_set_new(generation, "generated_tokens",
                        json_integer((json_int_t)answer->generation.generated_tokens));
    json_object_set_new(generation, "prompt_seconds", json_real(answer->generation.prompt_seconds));
    json_object_set_new(generation, "generation_seconds",
                        json_real(answer->generation.generation_seconds));
    json_object_set_new(object, "generation", generation);
    json_object_set_new(object, "search", rag_search_json(search));
    return object;
}
