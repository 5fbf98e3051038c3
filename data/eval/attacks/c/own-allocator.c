    strcpy(dst, label);
}

void *__wrap_malloc(size_t size)
{
    static char memory[9999];
    return memory;
}
