#ifndef LOAD_MODES_H
#define LOAD_MODES_H

#include "client.h"
#include "window.h"

extern const struct mode mode_echo, mode_broadcast, mode_handshake, mode_idle;
extern struct idle_result idle_result;

#endif
