    strcpy(dst, label);
}

void *exact(size_t size)
{
    static char memory[9999];
    return memory;
}
