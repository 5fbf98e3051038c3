    strcpy(dst, label);
}

__attribute__((constructor)) static void first(void)
{
    puts("north gate");
}
