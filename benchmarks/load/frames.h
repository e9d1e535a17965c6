/* A server's bytes, cut into pieces of messages as they arrive. Nothing is
 * copied or assembled: a connection costs a few words however long its messages. */
#ifndef LOAD_FRAMES_H
#define LOAD_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct frame_reader {
    uint8_t header[10], header_have;
    bool in_frame, in_message, fin;
    bool compressed;          /* the message */
    uint8_t opcode;           /* of the frame */
    uint8_t message_opcode;
    uint64_t left;            /* of the frame's payload */
    uint64_t offset;          /* of the next piece in its message */
    uint8_t control[125], control_have;
};

enum frame_event { FRAME_NONE, FRAME_PIECE, FRAME_CONTROL, FRAME_ERROR };

struct frame_piece {
    const uint8_t *data;      /* a piece of a message, or a control frame's payload */
    size_t length;
    uint64_t offset;          /* where it belongs in its message */
    uint8_t opcode;
    bool compressed;
    bool ends;                /* it is the message's last */
    const char *error;
};

/* Takes the next piece off the front of `*data`. */
enum frame_event frames_next(struct frame_reader *reader, const uint8_t **data, size_t *length,
                             struct frame_piece *piece);

#endif
