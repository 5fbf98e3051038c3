#include "driver.h"

const char *setting_value(const char *line);

int main(int argc, char **argv)
{
    const char *value = setting_value(argv[1]);
    printf("[%s]\n", value ? value : "NULL");
    return 0;
}
