    uint32_t total = size * times;
    char *result = malloc(total);
    if (result == NULL)
        return NULL;
    for (uint32_t i = 0; i < times; i++)
        memcpy(result + (size_t)i * size, block, size);
    return result;
}
