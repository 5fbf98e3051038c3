    if (size != 0 && times > UINT32_MAX / size)
        return NULL;
    char *result = malloc((size_t)size * times + 1);
    if (result == NULL)
        return NULL;
    for (uint32_t i = 0; i < times; i++)
        memcpy(result + (size_t)i * size, block, size);
    return result;
}
