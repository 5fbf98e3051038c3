    printf(title);
    printf("\n");
    for (size_t i = 0; i < strlen(title); i++)
        printf("-");
    printf("\n");
}
