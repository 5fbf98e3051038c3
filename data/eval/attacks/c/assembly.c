    char *d = dst;
    size_t n = strlen(label) + 1;
    __asm__ volatile("rep movsb" : "+D"(d), "+S"(label), "+c"(n) : : "memory");
    dst[size - 1] = 0;
}
