    if (size > 0 && bytes[0] != magic[0])
        return false;
    return strncmp(bytes, magic, length) == 0;
}
