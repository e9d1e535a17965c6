#include "frames.h"

#include <string.h>

#include "options.h"

static size_t header_need(const struct frame_reader *r)
{
    if (r->header_have < 2)
        return 2;
    unsigned length = r->header[1] & 0x7F;
    return length == 127 ? 10 : length == 126 ? 4 : 2;
}

static enum frame_event wrong(struct frame_piece *piece, const char *error)
{
    piece->error = error;
    return FRAME_ERROR;
}

/* A complete header: what frame begins here? */
static const char *begin_frame(struct frame_reader *r)
{
    size_t need = header_need(r);
    r->left = r->header[1] & 0x7F;
    if (need > 2) {
        r->left = 0;
        for (size_t i = 2; i < need; i++)
            r->left = r->left << 8 | r->header[i];
    }
    r->fin = r->header[0] & 0x80;
    r->opcode = r->header[0] & 0x0F;
    r->header_have = 0;
    r->in_frame = true;
    r->control_have = 0;
    bool may_have_rsv1 = options.deflate && (r->opcode == 1 || r->opcode == 2);
    if (r->header[0] & (may_have_rsv1 ? 0x30 : 0x70))
        return "a reserved bit is set though no extension was agreed";
    if (r->header[1] & 0x80)
        return "a frame from the server is masked";
    if (r->opcode >= 8)
        return !r->fin || r->left > 125 || r->opcode > 10 ? "a bad control frame" : NULL;
    if (r->opcode > 2)
        return "an unknown opcode";
    if (r->in_message != (r->opcode == 0))
        return "continuation frames in disorder";
    if (r->opcode) {
        r->message_opcode = r->opcode;
        r->compressed = r->header[0] & 0x40;
        r->offset = 0;
    }
    r->in_message = !r->fin;
    return NULL;
}

enum frame_event frames_next(struct frame_reader *r, const uint8_t **data, size_t *length,
                             struct frame_piece *piece)
{
    while (!r->in_frame) {
        if (*length == 0)
            return FRAME_NONE;
        r->header[r->header_have++] = *(*data)++;
        --*length;
        if (r->header_have >= 2 && r->header_have == header_need(r)) {
            const char *error = begin_frame(r);
            if (error)
                return wrong(piece, error);
        }
    }
    size_t take = r->left < *length ? (size_t)r->left : *length;
    if (take == 0 && r->left > 0)
        return FRAME_NONE;
    piece->data = *data;
    piece->length = take;
    piece->offset = r->offset;
    *data += take;
    *length -= take;
    r->left -= take;
    r->in_frame = r->left > 0;
    if (r->opcode < 8) {
        r->offset += take;
        piece->opcode = r->message_opcode;
        piece->compressed = r->compressed;
        piece->ends = r->left == 0 && r->fin;
        return FRAME_PIECE;
    }
    memcpy(r->control + r->control_have, piece->data, take);
    r->control_have += (uint8_t)take;
    if (r->in_frame)
        return FRAME_NONE;
    piece->opcode = r->opcode;
    piece->data = r->control;
    piece->length = r->control_have;
    return FRAME_CONTROL;
}
