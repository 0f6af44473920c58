/* jinja_tests: what may follow `is`: kinds of values, numbers, comparisons. */
#include <string.h>

#include "text/jinja.h"

#define UNUSED (void)r, (void)self, (void)slot, (void)args
#define TEST(name, condition)                                                     \
    static Value t_##name(Render *r, Value self, Value *slot, const Args *args) { \
        UNUSED;                                                                   \
        return jinja_bool(condition);                                             \
    }

static bool remainder_is(Render *r, Value value, Value divisor, int64_t expected) {
    return jinja_equal(r, jinja_binary(r, T_MOD, value, divisor), jinja_int(expected));
}

static bool has_case(Render *r, Value value, const char *method) {
    Value text = jinja_str(r, value);
    const Function *function =
        jinja_find(jinja_string_methods, jinja_n_string_methods, method, strlen(method));
    return jinja_truth(r, jinja_call_function(r, function, text, &(Args){0}));
}

static bool is_sequence(Value value) {
    return jinja_has_length(value) && value.kind != V_VIEW && value.kind != V_LOOP;
}

static bool is_callable(Value value) {
    return value.kind == V_UNDEFINED || value.kind == V_MACRO || value.kind == V_FUNCTION ||
           value.kind == V_BOUND || value.kind == V_LOOP || value.kind == V_JOINER;
}

static bool names(Render *r, Value value, const Function *(*find)(const char *, size_t)) {
    if (value.kind == V_LIST || value.kind == V_DICT)
        jinja_raise(r, "TypeError", "unhashable type: '%s'", jinja_type_name(value));
    return value.kind == V_STRING && find(value.as.string->data, value.as.string->length);
}

TEST(odd, remainder_is(r, self, jinja_int(2), 1))
TEST(even, remainder_is(r, self, jinja_int(2), 0))
TEST(divisibleby, remainder_is(r, self, slot[0], 0))
TEST(defined, self.kind != V_UNDEFINED)
TEST(undefined, self.kind == V_UNDEFINED)
TEST(filter, names(r, self, jinja_find_filter))
TEST(test, names(r, self, jinja_find_test))
TEST(none, self.kind == V_NONE)
TEST(boolean, self.kind == V_BOOL)
TEST(false, self.kind == V_BOOL && !self.as.truth)
TEST(true, self.kind == V_BOOL && self.as.truth)
TEST(integer, self.kind == V_INT)
TEST(float, self.kind == V_FLOAT)
TEST(lower, has_case(r, self, "islower"))
TEST(upper, has_case(r, self, "isupper"))
TEST(string, self.kind == V_STRING)
TEST(mapping, self.kind == V_DICT)
TEST(number, jinja_is_number(self))
TEST(sequence, is_sequence(self))
TEST(iterable, jinja_is_iterable(self))
TEST(callable, is_callable(self))
TEST(sameas, jinja_same(self, slot[0]))
TEST(escaped, self.kind == V_STRING && self.markup)
TEST(in, jinja_contains(r, slot[0], self))
TEST(eq, jinja_equal(r, self, slot[0]))
TEST(ne, !jinja_equal(r, self, slot[0]))
TEST(gt, jinja_ordered(r, T_GT, self, slot[0]))
TEST(ge, jinja_ordered(r, T_GTEQ, self, slot[0]))
TEST(lt, jinja_ordered(r, T_LT, self, slot[0]))
TEST(le, jinja_ordered(r, T_LTEQ, self, slot[0]))

static const Function tests[] = {
    {"odd", "test_odd", "", t_odd},
    {"even", "test_even", "", t_even},
    {"divisibleby", "test_divisibleby", "num", t_divisibleby},
    {"defined", "test_defined", "", t_defined},
    {"undefined", "test_undefined", "", t_undefined},
    {"filter", "test_filter", "", t_filter},
    {"test", "test_test", "", t_test},
    {"none", "test_none", "", t_none},
    {"boolean", "test_boolean", "", t_boolean},
    {"false", "test_false", "", t_false},
    {"true", "test_true", "", t_true},
    {"integer", "test_integer", "", t_integer},
    {"float", "test_float", "", t_float},
    {"lower", "test_lower", "", t_lower},
    {"upper", "test_upper", "", t_upper},
    {"string", "test_string", "", t_string},
    {"mapping", "test_mapping", "", t_mapping},
    {"number", "test_number", "", t_number},
    {"sequence", "test_sequence", "", t_sequence},
    {"iterable", "test_iterable", "", t_iterable},
    {"callable", "callable", "", t_callable},
    {"sameas", "test_sameas", "other", t_sameas},
    {"escaped", "test_escaped", "", t_escaped},
    {"in", "test_in", "seq", t_in},
    {"==", "eq", "other", t_eq},
    {"eq", "eq", "other", t_eq},
    {"equalto", "eq", "other", t_eq},
    {"!=", "ne", "other", t_ne},
    {"ne", "ne", "other", t_ne},
    {">", "gt", "other", t_gt},
    {"gt", "gt", "other", t_gt},
    {"greaterthan", "gt", "other", t_gt},
    {"ge", "ge", "other", t_ge},
    {">=", "ge", "other", t_ge},
    {"<", "lt", "other", t_lt},
    {"lt", "lt", "other", t_lt},
    {"lessthan", "lt", "other", t_lt},
    {"<=", "le", "other", t_le},
    {"le", "le", "other", t_le},
};

const Function *jinja_find_test(const char *name, size_t length) {
    return jinja_find(tests, BASE_COUNT(tests), name, length);
}
