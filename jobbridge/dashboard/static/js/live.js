// Filled by the live room.
