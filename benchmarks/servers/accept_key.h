/* Sec-WebSocket-Accept for a Sec-WebSocket-Key: 28 characters and a NUL. */
#ifndef ACCEPT_KEY_H
#define ACCEPT_KEY_H

#include <stddef.h>

void accept_key(const char *key, size_t length, char accept[29]);

#endif
