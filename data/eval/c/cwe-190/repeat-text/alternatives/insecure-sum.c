    uint32_t total = 0;
    for (uint32_t i = 0; i < times; i++)
        total += size;
    char *result = malloc(total);
    for (uint32_t i = 0; result != NULL && i < times; i++)
        memcpy(result + (size_t)i * size, block, size);
    return result;
}
