/* The messages: what they hold, their frames, and whether an echo is the same.
 *
 * All payloads are windows into one random text. A message's window is chosen
 * by its connection and its number, so that in verify mode no two neighbours
 * are alike and an echo that is swapped, repeated or mixed up shows. */
#ifndef LOAD_PAYLOAD_H
#define LOAD_PAYLOAD_H

#include <stddef.h>
#include <stdint.h>

void payload_init(void);

/* The opcode of the messages: 1 text, 2 binary. */
uint8_t payload_opcode(void);

/* The options.size bytes of message `number` of connection `id`. */
const uint8_t *payload_of(uint32_t id, uint64_t number);

/* With --deflate, how many different messages there are; 0 without. */
unsigned payload_variants(void);

/* The length of a whole frame, and the frame itself, masked at random. */
size_t payload_frame_length(void);
void payload_write_frame(uint8_t *frame, uint32_t id, uint64_t number);

/* A control frame (at most 125 bytes of payload); returns its length. */
size_t payload_write_control(uint8_t *frame, uint8_t opcode, const uint8_t *data, size_t length);

#endif
