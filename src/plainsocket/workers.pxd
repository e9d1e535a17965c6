from plainsocket.carriers cimport calls
