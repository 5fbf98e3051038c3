    return memcmp(bytes, magic, length) == 0;
}
