/* einsum: sums of products named by letters, lowered to diagonals, sums,
 * multiplications and matrix products. Every letter becomes a number, a set of
 * letters a bit mask; an ellipsis takes unused letters, aligned to the right.
 * Two operands at a time are contracted, first those whose product frees the
 * most memory. Only op_ functions are used, so gradients come by themselves. */
#include "engine/ops/ops.h"
#include "mlx/c/ops.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { LETTERS = 52 };

/* An operand or an intermediate product with the letter of each of its axes. */
typedef struct Term {
    Node *node; /* owned */
    int n;
    uint8_t labels[NODE_DIMS];
} Term;

typedef struct Einsum {
    Term *terms;
    int n_terms;
    uint8_t output[NODE_DIMS];
    int n_output;
} Einsum;

static uint64_t bit(int label) {
    return (uint64_t)1 << label;
}

static uint64_t term_set(const Term *term) {
    uint64_t set = 0;
    for (int i = 0; i < term->n; i++) set |= bit(term->labels[i]);
    return set;
}

static int term_axis(const Term *term, int label) {
    for (int i = 0; i < term->n; i++)
        if (term->labels[i] == label) return i;
    return -1;
}

static int label_of(char letter) {
    return letter >= 'a' ? letter - 'a' : letter - 'A' + 26;
}

/* Puts the next version of a term's node in place; false when it is NULL. */
static bool term_take(Term *term, Node *node) {
    node_release(term->node);
    term->node = node;
    return node != NULL;
}

/* ---- reading the subscripts ---------------------------------------------- */

/* The axes that an ellipsis in text stands for, in an array of ndim axes; -1
 * without an ellipsis, -2 after reporting an error. */
static int ellipsis_axes(const char *text, int ndim) {
    int letters = 0;
    bool found = false;
    for (const char *at = text; *at; at++) {
        if (isalpha((unsigned char)*at)) {
            letters++;
        } else if (strncmp(at, "...", 3) != 0) {
            op_error("[einsum] Subscripts must be letters, but got '%c'.", *at);
            return -2;
        } else if (found) {
            op_error("[einsum] Only one ellipsis per subscript is allowed but found more in '%s'.",
                     text);
            return -2;
        } else {
            found = true;
            at += 2;
        }
    }
    if (!found) return -1;
    if (letters > ndim) {
        op_error("[einsum] The subscript '%s' needs at least %d dimensions but the operand has %d.",
                 text, letters, ndim);
        return -2;
    }
    return ndim - letters;
}

/* Letters and ellipsis of text as labels; spare[spare_end - k] names the k-th
 * axis of an ellipsis from its end. */
static int read_labels(const char *text, int ellipsis, const uint8_t *spare_end, uint8_t *labels) {
    int n = 0;
    for (const char *at = text; *at; at++) {
        if (*at != '.') {
            if (n < NODE_DIMS) labels[n] = (uint8_t)label_of(*at);
            n++;
            continue;
        }
        for (int k = ellipsis; k > 0; k--, n++)
            if (n < NODE_DIMS) labels[n] = spare_end[-k];
        at += 2;
    }
    return n;
}

/* The output when "->" is missing: the ellipsis, then in alphabetical order the
 * letters that occur once. */
static void implicit_output(const char *inputs, char *out) {
    int seen[128] = {0};
    for (const char *at = inputs; *at; at++) seen[*at & 127]++;
    if (seen['.']) {
        memcpy(out, "...", 3);
        out += 3;
    }
    for (int letter = 'A'; letter <= 'z'; letter++)
        if (isalpha(letter) && seen[letter] == 1) *out++ = (char)letter;
    *out = 0;
}

/* The letters of term i against its node's shape and the sizes known so far. */
static bool check_term(const Term *term, int i, int *sizes) {
    const Node *node = term->node;
    if (term->n != node->ndim) {
        op_error("[einsum] Invalid number of subscripts %d for input %d with %d dimensions.",
                 term->n, i, node->ndim);
        return false;
    }
    int own[LETTERS];
    uint64_t met = 0;
    for (int axis = 0; axis < term->n; axis++) {
        const int label = term->labels[axis], size = node->shape[axis];
        if (met & bit(label) && own[label] != size) {
            op_error("[einsum] Dimensions of repeated subscripts do not have the same size (%d != "
                     "%d).",
                     own[label], size);
            return false;
        }
        met |= bit(label);
        own[label] = size;
        if (sizes[label] > 0 && sizes[label] != 1 && size != 1 && sizes[label] != size) {
            op_error("[einsum] Cannot broadcast dimension %d of input %d with shape %s to size %d.",
                     axis, i, SHAPE(node), sizes[label]);
            return false;
        }
        if (sizes[label] < 0 || sizes[label] == 1) sizes[label] = size;
    }
    return true;
}

/* Fills the terms' labels and the output from text (without spaces; changed). */
static bool read_subscripts(Einsum *sum, char *text) {
    char *arrow = strstr(text, "->");
    char *output_text = arrow ? arrow + 2 : base_alloc(strlen(text) + 4);
    if (arrow)
        *arrow = 0;
    else
        implicit_output(text, output_text);
    uint64_t used = 0;
    for (const char *at = text; *at; at++)
        if (isalpha((unsigned char)*at)) used |= bit(label_of(*at));
    for (const char *at = output_text; *at; at++)
        if (isalpha((unsigned char)*at)) used |= bit(label_of(*at));
    uint8_t spare[LETTERS];
    int n_spare = 0, longest = 0, sizes[LETTERS];
    for (int label = 0; label < LETTERS; label++) {
        sizes[label] = -1;
        if (!(used & bit(label))) spare[n_spare++] = (uint8_t)label;
    }
    int commas = 0;
    for (const char *at = text; *at; at++) commas += *at == ',';
    bool good = commas + 1 == sum->n_terms;
    if (!good)
        op_error("[einsum] Number of operands, %d, does not match number of input subscripts, %d.",
                 sum->n_terms, commas + 1);
    char *part = text;
    for (int i = 0; good && i < sum->n_terms; i++) {
        Term *term = &sum->terms[i];
        char *end = strchr(part, ',');
        if (end) *end = 0;
        const int ellipsis = ellipsis_axes(part, term->node->ndim);
        good = ellipsis > -2;
        if (good && ellipsis > n_spare) {
            op_error("[einsum] Too many dimensions for the letters of the alphabet.");
            good = false;
        }
        if (!good) break;
        longest = BASE_MAX(longest, ellipsis);
        term->n = read_labels(part, ellipsis, spare + n_spare, term->labels);
        good = check_term(term, i, sizes);
        part = end ? end + 1 : part;
    }
    if (good) good = ellipsis_axes(output_text, INT32_MAX) > -2;
    if (good) {
        sum->n_output = read_labels(output_text, longest, spare + n_spare, sum->output);
        uint64_t seen = 0;
        if (sum->n_output > NODE_DIMS) {
            op_error("[einsum] The output has too many dimensions.");
            good = false;
        }
        for (int i = 0; good && i < sum->n_output; i++) {
            const uint64_t mask = bit(sum->output[i]);
            if (seen & mask) {
                op_error("[einsum] Repeat indices not allowed in output.");
                good = false;
            } else if (sizes[sum->output[i]] < 0) {
                op_error("[einsum] The output has a subscript that no input has.");
                good = false;
            }
            seen |= mask;
        }
    }
    if (!arrow) free(output_text);
    return good;
}

/* ---- one term ---------------------------------------------------------------- */

/* Axes of the same letter become one, their diagonal, which comes last. */
static bool collapse_repeats(Term *term) {
    for (int i = 0; i < term->n; i++)
        for (int j = i + 1; j < term->n; j++) {
            if (term->labels[j] != term->labels[i]) continue;
            const uint8_t label = term->labels[i];
            if (!term_take(term, op_diagonal(term->node, 0, i, j))) return false;
            int n = 0;
            for (int axis = 0; axis < term->n; axis++)
                if (axis != i && axis != j) term->labels[n++] = term->labels[axis];
            term->labels[n] = label;
            term->n--;
            i = -1; /* the axes have moved: look again */
            break;
        }
    return true;
}

/* Sums the axes whose letter is not kept. */
static bool sum_out(Term *term, uint64_t keep) {
    int axes[NODE_DIMS], n_axes = 0, n = 0;
    for (int i = 0; i < term->n; i++) {
        if (keep & bit(term->labels[i]))
            term->labels[n++] = term->labels[i];
        else
            axes[n_axes++] = i;
    }
    term->n = n;
    if (n_axes == 0) return true;
    return term_take(term, op_reduce(REDUCE_SUM, term->node, axes, (size_t)n_axes, false));
}

/* The axes in the order of labels. Letters that the term lacks become axes of
 * one item. */
static bool arrange(Term *term, const uint8_t *labels, int n) {
    int order[NODE_DIMS], missing[NODE_DIMS], n_order = 0, n_missing = 0;
    for (int i = 0; i < n; i++) {
        const int axis = term_axis(term, labels[i]);
        if (axis >= 0)
            order[n_order++] = axis;
        else
            missing[n_missing++] = i;
    }
    if (!term_take(term, op_transpose(term->node, order, (size_t)n_order))) return false;
    if (n_missing && !term_take(term, op_expand_dims(term->node, missing, (size_t)n_missing)))
        return false;
    memcpy(term->labels, labels, (size_t)n);
    term->n = n;
    return true;
}

/* ---- two terms ----------------------------------------------------------------- */

/* Letters of term in `set`, in the term's order, after the n that are there. */
static int append_labels(uint8_t *labels, int n, const Term *term, uint64_t set) {
    for (int i = 0; i < term->n; i++)
        if (set & bit(term->labels[i])) labels[n++] = term->labels[i];
    return n;
}

/* term as [batch..., first, second]: the letters of these groups, the last two
 * groups merged. `sizes` gives contracted letters their broadcast size. */
static bool make_matrix(Term *term, const uint8_t *labels, int n_batch, int n_first, int n_second,
                        const int *sizes) {
    if (!arrange(term, labels, n_batch + n_first + n_second)) return false;
    int shape[NODE_DIMS];
    bool wider = false;
    for (int i = 0; i < term->n; i++) {
        const int size = sizes[labels[i]];
        shape[i] = size >= 0 ? size : term->node->shape[i];
        wider |= shape[i] != term->node->shape[i];
    }
    if (wider && !term_take(term, op_broadcast_to(term->node, shape, term->n))) return false;
    int64_t merged[2] = {1, 1};
    for (int i = 0; i < n_first; i++) merged[0] *= shape[n_batch + i];
    for (int i = 0; i < n_second; i++) merged[1] *= shape[n_batch + n_first + i];
    if (n_batch + 2 > NODE_DIMS || merged[0] > INT32_MAX || merged[1] > INT32_MAX) {
        op_error("[einsum] A product would be too large.");
        return false;
    }
    shape[n_batch] = (int)merged[0];
    shape[n_batch + 1] = (int)merged[1];
    return term_take(term, op_reshape(term->node, shape, (size_t)n_batch + 2));
}

/* a times b with the letters of `contracted` summed, into a. */
static bool multiply_matrices(Term *a, Term *b, uint64_t contracted) {
    const uint64_t set_a = term_set(a), set_b = term_set(b), shared = set_a & set_b;
    uint8_t left[2 * NODE_DIMS], right[2 * NODE_DIMS], result[2 * NODE_DIMS];
    const int n_batch = append_labels(left, 0, a, shared & ~contracted);
    const int n_rows = append_labels(left, n_batch, a, set_a & ~shared) - n_batch;
    const int n_inner = append_labels(left, n_batch + n_rows, a, contracted) - n_batch - n_rows;
    memcpy(right, left, (size_t)n_batch);
    memcpy(right + n_batch, left + n_batch + n_rows, (size_t)n_inner);
    const int n_columns =
        append_labels(right, n_batch + n_inner, b, set_b & ~shared) - n_batch - n_inner;
    const int n = n_batch + n_rows + n_columns;
    if (n > NODE_DIMS) {
        op_error("[einsum] A product would have too many dimensions.");
        return false;
    }
    int sizes[LETTERS], shape[NODE_DIMS];
    for (int label = 0; label < LETTERS; label++) sizes[label] = -1;
    for (int i = 0; i < n_inner; i++) {
        const int label = left[n_batch + n_rows + i];
        const int x = a->node->shape[term_axis(a, label)], y = b->node->shape[term_axis(b, label)];
        sizes[label] = x == 1 ? y : x;
    }
    memcpy(result, left, (size_t)(n_batch + n_rows));
    memcpy(result + n_batch + n_rows, right + n_batch + n_inner, (size_t)n_columns);
    for (int i = 0; i < n; i++) {
        const int in_a = term_axis(a, result[i]), in_b = term_axis(b, result[i]);
        shape[i] = in_a < 0 || (in_b >= 0 && a->node->shape[in_a] == 1) ? b->node->shape[in_b]
                                                                        : a->node->shape[in_a];
    }
    if (!make_matrix(a, left, n_batch, n_rows, n_inner, sizes) ||
        !make_matrix(b, right, n_batch, n_inner, n_columns, sizes) ||
        !term_take(a, op_matmul(a->node, b->node)) ||
        !term_take(a, op_reshape(a->node, shape, (size_t)n)))
        return false;
    memcpy(a->labels, result, (size_t)n);
    a->n = n;
    return true;
}

/* a times b, item by item of the union of their axes, into a. */
static bool multiply_items(Term *a, Term *b) {
    uint8_t labels[2 * NODE_DIMS];
    const int n_a = append_labels(labels, 0, a, ~(uint64_t)0);
    const int n = append_labels(labels, n_a, b, term_set(b) & ~term_set(a));
    if (n > NODE_DIMS) {
        op_error("[einsum] A product would have too many dimensions.");
        return false;
    }
    return arrange(a, labels, n) && arrange(b, labels, n) &&
           term_take(a, op_binary(BINARY_MULTIPLY, a->node, b->node));
}

/* Replaces terms i < j by their product; letters outside keep are summed as
 * soon as nobody else needs them. */
static bool contract(Einsum *sum, int i, int j, uint64_t keep) {
    Term *a = &sum->terms[i], *b = &sum->terms[j];
    if (!sum_out(a, keep | term_set(b)) || !sum_out(b, keep | term_set(a))) return false;
    const uint64_t contracted = term_set(a) & term_set(b) & ~keep;
    if (!(contracted ? multiply_matrices(a, b, contracted) : multiply_items(a, b))) return false;
    node_release(b->node);
    const Term product = *a;
    sum->n_terms--;
    memmove(b, b + 1, (size_t)(sum->n_terms - j) * sizeof *b);
    memmove(a, a + 1, (size_t)(sum->n_terms - i) * sizeof *a);
    sum->terms[sum->n_terms - 1] = product;
    return true;
}

/* ---- the order --------------------------------------------------------------------- */

static uint64_t output_set(const Einsum *sum) {
    uint64_t set = 0;
    for (int i = 0; i < sum->n_output; i++) set |= bit(sum->output[i]);
    return set;
}

/* Letters that must survive the product of terms i and j. */
static uint64_t needed_outside(const Einsum *sum, int i, int j) {
    uint64_t set = output_set(sum);
    for (int k = 0; k < sum->n_terms; k++)
        if (k != i && k != j) set |= term_set(&sum->terms[k]);
    return set;
}

static double items(uint64_t set, const int *sizes) {
    double count = 1;
    for (int label = 0; label < LETTERS; label++)
        if (set & bit(label)) count *= sizes[label];
    return count;
}

/* The pair that frees the most items; among equals the cheapest product. Pairs
 * without a common letter wait until there are no others. */
static void best_pair(const Einsum *sum, int *first, int *second) {
    int sizes[LETTERS];
    for (int label = 0; label < LETTERS; label++) sizes[label] = 1;
    for (int k = 0; k < sum->n_terms; k++)
        for (int axis = 0; axis < sum->terms[k].n; axis++) {
            int *size = &sizes[sum->terms[k].labels[axis]];
            if (*size == 1) *size = sum->terms[k].node->shape[axis];
        }
    bool found = false, found_shared = false;
    double freed = 0, cost = 0;
    for (int i = 0; i < sum->n_terms; i++)
        for (int j = i + 1; j < sum->n_terms; j++) {
            const uint64_t a = term_set(&sum->terms[i]), b = term_set(&sum->terms[j]);
            const bool shared = (a & b) != 0;
            const uint64_t result = (a | b) & needed_outside(sum, i, j);
            const double gain = items(a, sizes) + items(b, sizes) - items(result, sizes);
            const double work = items(a | b, sizes);
            if (found && found_shared > shared) continue;
            if (found && found_shared == shared &&
                (gain < freed || (gain == freed && work >= cost)))
                continue;
            found = true;
            found_shared = shared;
            freed = gain;
            cost = work;
            *first = i;
            *second = j;
        }
}

static Node *einsum_run(Einsum *sum) {
    for (int i = 0; i < sum->n_terms; i++)
        if (!collapse_repeats(&sum->terms[i])) return NULL;
    while (sum->n_terms > 1) {
        int i = 0, j = 1;
        if (sum->n_terms > 2) best_pair(sum, &i, &j);
        if (!contract(sum, i, j, needed_outside(sum, i, j))) return NULL;
    }
    Term *result = &sum->terms[0];
    if (!sum_out(result, output_set(sum)) || !arrange(result, sum->output, sum->n_output))
        return NULL;
    return node_retain(result->node);
}

Node *op_einsum(const char *subscripts, Node *const *operands, size_t count) {
    if (!subscripts) return op_error("[einsum] Subscripts are missing.");
    if (count == 0) return op_error("[einsum] At least one operand is required.");
    char *text = base_alloc(strlen(subscripts) + 1);
    size_t length = 0;
    for (const char *at = subscripts; *at; at++)
        if (*at != ' ') text[length++] = *at;
    text[length] = 0;
    Einsum sum = {.terms = base_alloc(count * sizeof(Term)), .n_terms = (int)count};
    for (size_t i = 0; i < count; i++) sum.terms[i] = (Term){.node = node_retain(operands[i])};
    Node *result = read_subscripts(&sum, text) ? einsum_run(&sum) : NULL;
    for (int i = 0; i < sum.n_terms; i++) node_release(sum.terms[i].node);
    free(sum.terms);
    free(text);
    return result;
}

int mlx_einsum(mlx_array *res, const char *subscripts, const mlx_vector_array operands,
               const mlx_stream s) {
    Node *const *nodes;
    size_t count;
    if (!stream_ok(s) || !vector_nodes(operands, &nodes, &count)) return 1;
    return op_finish(res, op_einsum(subscripts, nodes, count));
}
