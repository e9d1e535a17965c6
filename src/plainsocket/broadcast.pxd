cimport cython

from plainsocket.protocol cimport SharedMessage
from plainsocket.websocket cimport WebSocket

@cython.locals(shared=SharedMessage, websocket=WebSocket)
cpdef list broadcast(websockets, message)
