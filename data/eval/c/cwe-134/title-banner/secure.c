    puts(title);
    for (size_t i = 0; i < strlen(title); i++)
        putchar('-');
    putchar('\n');
}
