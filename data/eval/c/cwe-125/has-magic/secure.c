    return length <= size && memcmp(bytes, magic, length) == 0;
}
