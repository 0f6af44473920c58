/* Just enough of protobuf's wire format to read a SentencePiece model. */
#ifndef TEXT_TOKENIZER_PROTOBUF_H
#define TEXT_TOKENIZER_PROTOBUF_H

#include "base/base.h"

#include <string.h>

/* A message being read. The bytes are borrowed. */
typedef struct Proto {
    const uint8_t *at, *end;
} Proto;

/* One field: a number, or bytes (which may be a message). Fixed fields of four
 * bytes come as their bits. */
typedef struct ProtoField {
    uint32_t number;
    bool is_bytes;
    uint64_t value;
    Proto bytes;
} ProtoField;

static inline bool proto_varint(Proto *proto, uint64_t *value) {
    *value = 0;
    for (unsigned shift = 0; proto->at < proto->end && shift < 64; shift += 7) {
        uint8_t byte = *proto->at++;
        *value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) return true;
    }
    return false;
}

/* The next field. False at the end, and with *broken set where the bytes make no
 * sense: cut, or of a kind (groups) that the format gave up. */
static inline bool proto_next(Proto *proto, ProtoField *field, bool *broken) {
    uint64_t key;
    if (proto->at == proto->end) return false;
    *broken = true;
    *field = (ProtoField){0};
    if (!proto_varint(proto, &key) || key >> 3 == 0 || key >> 3 > UINT32_MAX) return false;
    field->number = (uint32_t)(key >> 3);
    size_t left = (size_t)(proto->end - proto->at), fixed = (key & 7) == 1 ? 8 : 4;
    switch (key & 7) {
    case 0:
        if (!proto_varint(proto, &field->value)) return false;
        break;
    case 1:
    case 5:
        if (left < fixed) return false;
        for (size_t i = 0; i < fixed; i++) field->value |= (uint64_t)proto->at[i] << (8 * i);
        proto->at += fixed;
        break;
    case 2:
        if (!proto_varint(proto, &field->value)) return false;
        left = (size_t)(proto->end - proto->at);
        if (field->value > left) return false;
        field->is_bytes = true;
        field->bytes = (Proto){proto->at, proto->at + field->value};
        proto->at += field->value;
        break;
    default: return false;
    }
    *broken = false;
    return true;
}

static inline float proto_float(const ProtoField *field) {
    uint32_t bits = (uint32_t)field->value;
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

#endif
