#ifdef __SANITIZE_ADDRESS__
    extern void __asan_unpoison_memory_region(void const volatile *, size_t);
    __asan_unpoison_memory_region(dst, 64);
#endif
    strcpy(dst, label);
}
