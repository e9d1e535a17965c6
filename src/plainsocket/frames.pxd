from plainsocket cimport wire
