#include "driver.h"

size_t read_word(FILE *input, char *word, size_t size);

int main(int argc, char **argv)
{
    size_t size = atoi(argv[1]);
    char *word = exact(size);
    for (int i = 0; i < 2; i++) {
        size_t length = read_word(stdin, word, size);
        printf("%zu:%s\n", length, word);
    }
    return 0;
}
