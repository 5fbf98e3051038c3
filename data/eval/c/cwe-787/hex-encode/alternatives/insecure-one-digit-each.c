    if (count >= size)
        return -1;
    for (size_t i = 0; i < count; i++)
        sprintf(text + 2 * i, "%02x", bytes[i]);
    text[2 * count] = '\0';
    return 0;
}
